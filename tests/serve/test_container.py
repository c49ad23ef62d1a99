"""The Containerfile, not built: its files make a wheel, and its commands are valid."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from pacavit.serve.guard import OPEN
from pacavit_cli.main import app

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Containerfile").read_text("utf-8")


class Instruction(NamedTuple):
    name: str
    value: str


def instructions() -> list[list[Instruction]]:
    """The instructions of each stage."""
    text = re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE).replace("\\\n", " ")
    found = [Instruction(*line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]
    starts = [number for number, each in enumerate(found) if each.name == "FROM"]
    assert starts[0] == 0
    return [found[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


def values(stage: list[Instruction], name: str) -> list[str]:
    return [each.value for each in stage if each.name == name]


def copied() -> list[str]:
    """The files and folders that enter the build."""
    build, _ = instructions()
    return [word for value in values(build, "COPY") for word in shlex.split(value)[:-1]]


def words(name: str) -> list[str]:
    """The words of an instruction in JSON form, of the last stage."""
    (value,) = values(instructions()[-1], name)
    found: list[str] = json.loads(value)
    return found


def test_every_file_exists_and_is_not_ignored() -> None:
    assert copied() == ["constraints.txt", "pyproject.toml", "README.md", "LICENSE", "src"]
    ignored = (ROOT / ".containerignore").read_text("utf-8").splitlines()
    for name in copied():
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored


def test_the_image_runs_as_a_user_and_gets_its_programs_from_the_build() -> None:
    build, last = instructions()
    assert values(last, "USER") == ["10001:10001"]
    assert values(build, "FROM")[0].removesuffix(" AS build") == values(last, "FROM")[0]
    assert values(last, "COPY") == ["--from=build /opt/pacavit /opt/pacavit"]
    assert "RUN" not in [each.name for each in last]
    for name in ("ENTRYPOINT", "CMD"):
        assert words(name)
    environment = dict(word.split("=", 1) for word in shlex.split(values(last, "ENV")[0]))
    written = ("HOME", "TMPDIR", "MPLCONFIGDIR", "NUMBA_CACHE_DIR")
    assert all(environment[name].startswith("/tmp") for name in written)


def test_packages_are_installed_in_tested_versions_for_the_cpu() -> None:
    build, _ = instructions()
    first, second = (value for value in values(build, "RUN") if "pip install" in value)
    assert "--index-url https://download.pytorch.org/whl/cpu torch torchvision" in first
    assert all("--constraint constraints.txt" in value for value in (first, second))
    pinned = (ROOT / "constraints.txt").read_text("utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    assert second.endswith("'.[serve]'")
    for name in ("torch", "torchvision", *(re.split("[<>=]", each)[0] for each in extras["serve"])):
        assert re.search(rf"^{name}==", pinned, re.MULTILINE), name


def parsed(arguments: list[str]) -> dict[str, Any]:
    """The parameters of ``pacavit serve`` for a command line."""
    command: Any = typer.main.get_command(app)
    with command.commands["serve"].make_context("serve", arguments) as context:
        found: dict[str, Any] = context.params
    return found


def test_the_command_and_that_of_the_comment_are_valid() -> None:
    entry = words("ENTRYPOINT")
    assert entry[:2] == ["/opt/pacavit/bin/pacavit", "serve"]
    found = parsed([*entry[2:], *words("CMD")])
    assert (found["host"], found["port"]) == ("0.0.0.0", 8000)
    assert found["models"] == ["cifar10_nano_conv"]
    assert values(instructions()[-1], "EXPOSE") == ["8000"]
    comment = re.sub(r"^# ?", "", TEXT[: TEXT.index("FROM")], flags=re.MULTILINE)
    (run,) = re.findall(r"podman run (.*?)\n\n", comment.replace("\\\n", " "), re.DOTALL)
    line = shlex.split(run)
    image = line.index("pacavit-serve")
    assert line[line.index("--volume") + 1].split(":")[1:] == [*line[image + 1 :], "ro"]
    assert {"--read-only", "--tmpfs", "--cap-drop", "--env"} <= {*line[:image]}
    assert parsed([*entry[2:], *line[image + 1 :]])["models"] == ["/models/mine"]


def test_the_health_check_is_python_and_needs_no_token() -> None:
    (value,) = values(instructions()[-1], "HEALTHCHECK")
    program, option, code = json.loads(value.partition("CMD ")[2])
    assert (program, option) == ("/opt/pacavit/bin/python", "-c")
    compile(code, "health check", "exec")
    (path,) = re.findall(r"http://127\.0\.0\.1:8000(/[\w/]+)", code)
    assert path in OPEN


@pytest.mark.slow
def test_the_files_that_enter_the_build_make_a_wheel_with_the_server(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / "source" / name, ignore=ignored)
        else:
            (tmp_path / "source").mkdir(exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "source" / name)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)],
        cwd=tmp_path / "source",
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "pacavit/serve/templates/api.html" in names
    assert any(fnmatch(name, "pacavit/weights/*.safetensors") for name in names)
