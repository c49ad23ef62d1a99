from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from importlib.resources import files
from pathlib import Path

import pytest

import pacavit

ROOT = Path(__file__).parents[1]

# In a new process, for the modules that this one has loaded already tell nothing.
HELP_OF_EVERY_COMMAND = """
import sys
from pacavit_cli.main import app, main

verbs = [c.name or c.callback.__name__.replace("_", "-") for c in app.registered_commands]
for arguments in ([], *([verb] for verb in verbs)):
    code = main([*arguments, "--help"])
    assert code == 0, (arguments, code)
slow = {"matplotlib", "numpy", "pacavit", "timm", "torch"} & set(sys.modules)
assert not slow, slow
"""


def test_the_package_is_typed() -> None:
    assert files("pacavit").joinpath("py.typed").is_file()


def test_help_does_not_load_torch() -> None:
    source = Path(pacavit.__path__[0]).parent
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HELP_OF_EVERY_COMMAND],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout


def test_every_package_that_is_imported_is_declared() -> None:
    imported = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    imported -= {*sys.stdlib_module_names, "pacavit", "pacavit_cli"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    optional = ("demo", "export", "mlflow", "peers", "serve", "wandb")
    lines = [*project["dependencies"], *(line for name in optional for line in extras[name])]
    declared = {re.split(r"[<>=]", line)[0] for line in lines}
    # The loggers need not be installed.
    owners = {"mlflow": ["mlflow-skinny"], "wandb": ["wandb"]} | dict(packages_distributions())
    missing = {
        name
        for name in imported - declared
        if not declared & {owner.lower().replace("_", "-") for owner in owners[name]}
    }
    assert missing == set()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_a_choice_of_tests_does_not_reach_those_in_a_browser() -> None:
    # All that pytest could collect of them may be left out by the choice, which is an error.
    words = ["make", "--dry-run", "check", "PYTEST_ARGS=-k registry"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    printed = done.stdout.replace("\\\n", " ")  # lines go on after a backslash
    runs = [line for line in printed.splitlines() if "-m pytest" in line]
    assert [("-k registry" in line, "not browser" in line) for line in runs] == [
        (True, True),
        (False, False),
    ]
