from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pacavit

# In a new process, for the modules that this one has loaded already tell nothing.
HELP_OF_EVERY_COMMAND = """
import sys
from pacavit_cli.main import app, main

verbs = [c.name or c.callback.__name__ for c in app.registered_commands]
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
