"""What starting loads: heavy libraries only where something needs them."""

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

import pacavit
from pacavit import api
from pacavit.utils.lazy import lazy_names
from pacavit_cli.names import packaged_entries

SOURCE = Path(pacavit.__path__[0]).parent

# timm itself loads the hub client, torchvision, safetensors and Pillow.
HEAVY = {
    "captum",
    "jinja2",
    "matplotlib",
    "numba",
    "pyarrow",
    "pydantic",
    "rich",
    "scipy",
    "sklearn",
    "tensorboard",
    "torchmetrics",
    "typer",
}
KINDS = (
    "formats",
    "models",
    "clusterings",
    "attentions",
    "heads",
    "detectors",
    "methods",
    "recipes",
    "datasets",
    "tasks",
    "loggers",
    "weights",
)


def run(code: str, *words: str) -> str:
    """What a new process prints; this one has loaded everything already."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *words],
        cwd=SOURCE,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_only_registers_the_models() -> None:
    code = (
        "import json, sys, torch, timm\n"
        "before = set(sys.modules)\n"
        "import pacavit\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))\n"
        "assert 'pacavit_nano' in timm.list_models('pacavit_*')\n"
        "print(json.dumps([[*pacavit.CLUSTERINGS], [*pacavit.ATTENTIONS], [*pacavit.DATASETS]]))"
    )
    modules, registered = map(json.loads, run(code).splitlines())
    packages = {name.partition(".")[0] for name in modules}
    assert packages & HEAVY == set()
    # Beside its own modules nothing but some of torch and of the standard library.
    assert packages - {"pacavit", "torch"} <= sys.stdlib_module_names
    verbs = ("api", "data", "engine", "explain", "recipes", "report", "tasks")
    assert {f"pacavit.{name}" for name in verbs} & {*modules} == set()
    clusterings, attentions, datasets = map(set, registered)  # complete on first access
    assert {"conv", "dbscan", "kmeans", "teacher"} <= clusterings
    assert {"full", "paca"} <= attentions
    assert {"cifar10", "digits", "folder", "imagenet", "shapes"} <= datasets


def test_lists_from_the_source_are_those_of_the_registries() -> None:
    code = (
        "import json, sys\n"
        "from pacavit_cli.names import packaged_entries\n"
        "print(json.dumps({kind: packaged_entries(kind) for kind in sys.argv[1:]}))\n"
        "loaded = {'pacavit', 'torch', 'numpy'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    found = json.loads(run(code, *KINDS, "no kind"))
    assert found.pop("no kind") is None
    # In a process of its own too: other tests register names here.
    code = (
        "import json, sys\n"
        "from pacavit import list_names\n"
        "print(json.dumps({kind: list_names(kind) for kind in sys.argv[1:]}))"
    )
    assert found == json.loads(run(code, *KINDS))
    assert all(found.values())


def test_listing_names_loads_no_torch() -> None:
    code = (
        "import sys\n"
        "from pacavit_cli.main import main\n"
        "assert main(['list', 'clusterings']) == 0\n"
        "loaded = {'pacavit', 'torch', 'timm', 'numpy'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    assert "kmeans  " in run(code)


def test_lists_are_those_of_the_registries_where_a_plugin_may_have_added_to_them() -> None:
    assert "pacavit" in sys.modules
    assert packaged_entries("attentions") is None


def test_lists_are_those_of_the_registries_where_a_package_adds_to_them(tmp_path: Path) -> None:
    info = tmp_path / "brought-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pacavit.attention]\nbrought = brought:Brought\n")
    code = (
        "import sys\n"
        "from pacavit_cli.names import packaged_entries\n"
        "assert packaged_entries('attentions') is not None\n"
        "sys.path.append(sys.argv[1])\n"
        "assert packaged_entries('attentions') is None"
    )
    run(code, str(tmp_path))


@pytest.mark.parametrize("package", [pacavit, api], ids=lambda package: package.__name__)
def test_lazy_names_are_those_that_type_checkers_see(package: ModuleType) -> None:
    assert package.__file__
    (block,) = (
        node
        for node in ast.parse(Path(package.__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = set()
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        assert node.module
        module = import_module(node.module)
        for alias in node.names:
            assert getattr(package, alias.name) is getattr(module, alias.name)
            seen.add(alias.name)
    assert set(package.__all__) - seen <= {"__version__", "models"}
    assert seen <= set(package.__all__) <= set(dir(package))


def test_a_missing_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pacavit' has no attribute 'clusterings'"):
        _ = pacavit.clusterings  # type: ignore[attr-defined]


def test_a_lazy_name_is_imported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("lazy_package")
    monkeypatch.setitem(sys.modules, "lazy_package", package)
    load, names = lazy_names("lazy_package", {"json": ("loads",)}, submodules=("part",))
    assert names() == sorted({*vars(ModuleType("x")), "loads", "part"})
    assert "loads" not in vars(package)
    assert load("loads") is json.loads
    assert vars(package)["loads"] is json.loads


def test_predicting_loads_nothing_that_only_measures_or_draws(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (40, 30)).save(image)
    code = (
        "import json, sys\n"
        "from pacavit_cli.main import main\n"
        "assert main(['predict', 'cifar10_nano_conv', sys.argv[1]]) == 0\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    modules = json.loads(run(code, str(image)).splitlines()[-1])
    packages = {name.partition(".")[0] for name in modules}
    assert packages & HEAVY == {"pydantic", "rich", "typer"}
    assert not {"pacavit.explain", "pacavit.demo", "pacavit.compare"} & {*modules}
