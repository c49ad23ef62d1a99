"""What is built is complete and works away from the repository: it trains, its weights predict."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from pacavit.engine import packaged_names

REPOSITORY = Path(__file__).parents[1]
IGNORED = shutil.ignore_patterns("*.egg-info", "__pycache__")
pytestmark = pytest.mark.slow


def run(*words: str | Path, cwd: Path) -> str:
    """Run a command without this repository on the path and return what it printed."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    clean["NUMBA_OPT"] = "0"  # a new installation compiles its loops: in half of the time
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=clean, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source archive and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    # A copy, because building leaves a build folder whose old files would get into later wheels.
    shutil.copytree(REPOSITORY / "src", source / "src", ignore=IGNORED)
    for name in ("examples", "tests"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=IGNORED)
    for path in REPOSITORY.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, source)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source, cwd=folder)
    return folder


def files_below(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path)
    }


def test_the_wheel_has_every_file_of_the_packages(built: Path) -> None:
    (wheel,) = built.glob("pacavit-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == files_below(REPOSITORY / "src")
    assert wheel.name in (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert {"pacavit/py.typed", "pacavit/recipes/library/digits.toml"} <= names
    weights = {name for name in names if name.startswith("pacavit/weights/")}
    assert {f"pacavit/weights/{name}.safetensors" for name in packaged_names()} <= weights


def test_the_weights_make_a_download_of_30_megabytes_at_most(built: Path) -> None:
    (wheel,) = built.glob("pacavit-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        weights = [each for each in archive.infolist() if each.filename.endswith(".safetensors")]
    assert sum(each.compress_size for each in weights) <= 30e6


def test_the_source_archive_has_sources_tests_and_examples(built: Path) -> None:
    (path,) = built.glob("pacavit-*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"src/{name}" for name in files_below(REPOSITORY / "src")} <= names
    for folder in ("examples", "tests"):
        assert {f"{folder}/{name}" for name in files_below(REPOSITORY / folder)} <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile", "constraints.txt"} <= names


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment that has the wheel, and nothing of the repository.

    The dependencies are those of the running environment, lent through its site-packages: a
    second torch would be gigabytes. Only the environment's own .pth files are run, so an editable
    install of pacavit among the lent packages does not count.
    """
    folder = tmp_path_factory.mktemp("wheel")
    (wheel,) = built.glob("pacavit-*.whl")
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
    assert record["scores"]["accuracy"] > 0.5


def test_packaged_weights_predict(installed: Path, tmp_path: Path) -> None:
    """Of two tasks, and of one of the clusterings that compile loops, which takes long."""
    pacavit = installed / "pacavit"
    lines = run(pacavit, "list", "weights", cwd=tmp_path).splitlines()
    if not lines:
        pytest.skip("no weights are packaged")
    Image.new("L", (50, 41), 128).save(tmp_path / "gray.png")
    names = [line.split()[0] for line in lines]
    names = [name for name in names if not name.endswith(("_gmm", "_hierarchical", "_dbscan"))]
    # One process for all but the first: each would load torch anew.
    code = (
        "import sys\n"
        "from pacavit_cli.main import main\n"
        "for name in sys.argv[1:]:\n"
        "    assert main(['predict', name, 'gray.png', '--json']) == 0, name\n"
        "    print('---')"
    )
    answers = [run(pacavit, "predict", names[0], "gray.png", "--json", cwd=tmp_path)]
    answers += run(installed / "python", "-c", code, *names[1:], cwd=tmp_path).split("---")[:-1]
    assert len(answers) == len(names)
    for name, answer in zip(names, answers, strict=True):
        (found,) = json.loads(answer)
        if name.startswith("camvid"):
            assert sum(each["area"] for each in found["classes"]) == pytest.approx(1, abs=1e-4)
        else:
            assert len(found["top"]) == 5
