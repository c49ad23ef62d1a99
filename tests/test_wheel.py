"""The built wheel works away from the repository: it trains, and its packaged weights predict."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def run(*words: str | Path, cwd: Path) -> str:
    """Run a command without this repository on the path and return what it printed."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=clean, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment that has the wheel, and nothing of the repository.

    The dependencies are those of the running environment, lent through its site-packages: a
    second torch would be gigabytes. Only the environment's own .pth files are run, so an editable
    install of pacavit among the lent packages does not count.
    """
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # A copy, because building leaves a build folder whose old files would get into later wheels.
    shutil.copytree(REPOSITORY / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    build = ("wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", *build, source, cwd=folder)
    (wheel,) = folder.glob("pacavit-*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    install = ("install", "--no-deps", "--no-index", "--quiet", wheel)
    run(sys.executable, "-m", "pip", "--python", python, *install, cwd=folder)
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


def test_the_wheel_is_what_is_imported(installed: Path, tmp_path: Path) -> None:
    code = "import pacavit, pacavit_cli; print(pacavit.__file__); print(pacavit_cli.__file__)"
    for path in run(installed / "python", "-c", code, cwd=tmp_path).splitlines():
        assert Path(path).is_relative_to(installed.parent)


def test_it_trains_digits(installed: Path, tmp_path: Path) -> None:
    pacavit = installed / "pacavit"
    run(pacavit, "train", "digits", "--out", "run", "--set", "train.epochs=2", cwd=tmp_path)
    run(pacavit, "evaluate", "run", cwd=tmp_path)
    record = json.loads((tmp_path / "run" / "evaluation-test" / "evaluation.json").read_text())
    assert record["accuracy"] > 0.5


def test_packaged_weights_predict(installed: Path, tmp_path: Path) -> None:
    pacavit = installed / "pacavit"
    lines = run(pacavit, "list", "weights", cwd=tmp_path).splitlines()
    if not lines:
        pytest.skip("no weights are packaged")
    Image.new("L", (50, 41), 128).save(tmp_path / "grey.png")
    for name in (line.split()[0] for line in lines):
        answer = run(pacavit, "predict", name, "grey.png", "--json", cwd=tmp_path)
        assert len(json.loads(answer)[0]["top"]) == 5
