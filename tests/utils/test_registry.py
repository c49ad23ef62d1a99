from __future__ import annotations

import importlib
import sys
from fractions import Fraction
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from pacavit.errors import PacavitError, UnknownNameError
from pacavit.utils import registry as _registry
from pacavit.utils.registry import Registry, load_plugin


class Fruit:
    def __init__(self, weight: float, color: str = "green", *, ripe: bool = False) -> None:
        self.weight, self.color, self.ripe = weight, color, ripe


@pytest.fixture
def fruits() -> Registry[Fruit]:
    registry: Registry[Fruit] = Registry("fruit")
    registry.register("pear")(Fruit)
    return registry


def test_register_returns_the_class_and_get_finds_it(fruits: Registry[Fruit]) -> None:
    class Apple(Fruit):
        pass

    assert fruits.register("apple")(Apple) is Apple
    assert fruits.get("apple") is Apple
    assert fruits.names() == ("pear", "apple")
    assert list(fruits) == ["pear", "apple"]
    assert "apple" in fruits
    assert "plum" not in fruits


def test_a_taken_name_raises(fruits: Registry[Fruit]) -> None:
    with pytest.raises(ValueError, match=r"'pear' is already registered, as .*\.Fruit"):
        fruits.register("pear")(Fruit)


def test_an_unknown_name_suggests_the_nearest(fruits: Registry[Fruit]) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown fruit 'paer'; did you mean 'pear'\?"):
        fruits.get("paer")


def test_create_joins_fixed_arguments_and_options(fruits: Registry[Fruit]) -> None:
    fruit = fruits.create("pear", 0.2, color="yellow", options={"ripe": True})
    assert (fruit.weight, fruit.color, fruit.ripe) == (0.2, "yellow", True)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("rpie", r"unknown option 'rpie' of fruit 'pear'; did you mean 'ripe'\?"),
        ("color", r"unknown option 'color' of fruit 'pear'; known: ripe"),
        ("weight", r"unknown option 'weight' of fruit 'pear'; known: ripe"),
    ],
)
def test_create_refuses_options_that_are_unknown_or_fixed(
    fruits: Registry[Fruit], option: str, message: str
) -> None:
    with pytest.raises(UnknownNameError, match=message):
        fruits.create("pear", 0.2, color="yellow", options={option: 1})


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """Entry points of the group pacavit.fruit, as if another package had brought them."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(
        _registry, "entry_points", lambda *, group: [p for p in points if p.group == group]
    )
    return points


def test_entry_points_are_found_at_the_first_look(
    fruits: Registry[Fruit], installed: list[EntryPoint]
) -> None:
    installed.append(EntryPoint("mango", "fractions:Fraction", "pacavit.fruit"))
    installed.append(EntryPoint("kiwi", "fractions:Fraction", "pacavit.vegetable"))
    assert fruits.names() == ("pear", "mango")
    assert fruits.get("mango").__name__ == "Fraction"


def test_an_entry_point_may_bring_a_class_that_is_registered(
    fruits: Registry[Fruit], installed: list[EntryPoint]
) -> None:
    fruits.register("mango")(Fraction)  # type: ignore[arg-type]
    installed.append(EntryPoint("mango", "fractions:Fraction", "pacavit.fruit"))
    assert fruits.names() == ("pear", "mango")


def test_an_entry_point_with_a_taken_name_raises_and_names_both(
    fruits: Registry[Fruit], installed: list[EntryPoint]
) -> None:
    installed.append(EntryPoint("pear", "fractions:Fraction", "pacavit.fruit"))
    for _ in range(2):
        with pytest.raises(
            PacavitError, match=r"fruit 'pear' \(fractions:Fraction\) .*test_registry\.Fruit;"
        ):
            fruits.get("pear")


@pytest.fixture
def orchard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution named orchard with two entry points; its module comes later."""
    facts = tmp_path / "orchard-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: orchard\nVersion: 1.0\n")
    points = ("[pacavit.fruit]", "apple = orchard_module:Apple", "plum = orchard_module:Plum")
    (facts / "entry_points.txt").write_text("\n".join(points))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "orchard_module", raising=False)
    return tmp_path / "orchard_module.py"


def test_a_broken_package_is_named_every_time_until_it_is_mended(
    fruits: Registry[Fruit], orchard: Path
) -> None:
    message = (
        r"fruit 'apple' \(orchard_module:Apple\) of the installed package orchard failed to load: "
        r"ModuleNotFoundError: .*; fix or uninstall"
    )
    for _ in range(2):
        with pytest.raises(PacavitError, match=message):
            fruits.names()
    orchard.write_text("class Apple: ...")
    importlib.invalidate_caches()
    for _ in range(2):  # the first of the two loads: then none of them may stay
        with pytest.raises(PacavitError, match=r"fruit 'plum' .* AttributeError"):
            fruits.names()
    sys.modules["orchard_module"].Plum = Fruit  # type: ignore[attr-defined]
    assert fruits.names() == ("pear", "apple", "plum")


def test_a_package_may_look_up_names_while_it_is_imported(
    fruits: Registry[Fruit], orchard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_registry, "fruits", fruits, raising=False)
    orchard.write_text(
        "from pacavit.utils.registry import fruits\n"
        "class Apple: known = fruits.names()\n"
        "class Plum: ...\n"
    )
    assert fruits.names() == ("pear", "apple", "plum")
    assert vars(fruits.get("apple"))["known"] == ("pear",)


# A plugin that leaves a mark beside itself each time it runs.
PLUGIN = """
from pathlib import Path
with Path(__file__).with_suffix(".ran").open("a") as file:
    file.write(__name__ + "\\n")
"""


def write_plugin(folder: Path, source: str = PLUGIN) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "mine.py"
    path.write_text(source)
    return path


def runs(plugin: Path) -> list[str]:
    return plugin.with_suffix(".ran").read_text().splitlines()


def test_a_plugin_runs_once(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path)
    load_plugin(plugin)
    load_plugin(str(plugin))
    assert len(runs(plugin)) == 1


def test_plugins_of_one_file_name_are_different_modules(tmp_path: Path) -> None:
    plugins = [write_plugin(tmp_path / folder) for folder in ("a", "b")]
    for plugin in plugins:
        load_plugin(plugin)
    assert runs(plugins[0]) != runs(plugins[1])


def test_a_missing_plugin_is_named(tmp_path: Path) -> None:
    with pytest.raises(PacavitError, match=r"no plugin file at .*nowhere\.py"):
        load_plugin(tmp_path / "nowhere.py")


def test_a_plugin_must_be_python(tmp_path: Path) -> None:
    plugin = tmp_path / "notes.txt"
    plugin.write_text("pass\n")
    with pytest.raises(PacavitError, match=r"notes\.txt .* must end in \.py"):
        load_plugin(plugin)


def test_a_broken_plugin_is_reported_and_can_be_fixed(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "1 / 0\n")
    with pytest.raises(PacavitError, match=r"mine\.py failed to load: ZeroDivisionError: division"):
        load_plugin(plugin)
    write_plugin(tmp_path)
    load_plugin(plugin)
    assert len(runs(plugin)) == 1


def test_an_old_name_is_accepted_with_a_warning_and_not_listed() -> None:
    registry: Registry[Fruit] = Registry("fruit")
    registry.register("pear", formerly=["peer"])(Fruit)
    with pytest.warns(FutureWarning, match="fruit 'peer' is now called 'pear'"):
        assert registry.get("peer") is Fruit
    with pytest.warns(FutureWarning, match="'pear'"):
        assert registry.canonical("peer") == "pear"
    with pytest.warns(FutureWarning, match="'pear'"):
        assert registry.create("peer", 0.2, options={}).weight == 0.2
    assert registry.canonical("pear") == "pear"
    assert registry.names() == ("pear",)
    with pytest.raises(UnknownNameError, match="did you mean 'pear'"):
        registry.canonical("paer")
