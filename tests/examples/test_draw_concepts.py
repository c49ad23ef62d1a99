import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def test_it_writes_the_same_small_pictures_at_every_call(
    load_example: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_example("draw_concepts")
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        monkeypatch.setattr(sys, "argv", ["draw_concepts.py", "--out", str(tmp_path / folder)])
        script.main()
    for name in ("attention.svg", "architecture.svg"):
        first = (tmp_path / "first" / name).read_bytes()
        assert first == (tmp_path / "second" / name).read_bytes()
        assert len(first) < 200_000
        assert (ROOT / "docs" / "pictures" / name).stat().st_size < 200_000


def test_the_drawn_packages_are_those_of_the_import_rules(
    load_example: Callable[[str], ModuleType],
) -> None:
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contract = rules["tool"]["importlinter"]["contracts"][1]
    planned = [
        {name.strip(" ()") for name in layer.replace(":", "|").split("|")}
        for layer in contract["layers"]
    ]
    built = {path.stem for path in (ROOT / "src" / "pacavit").iterdir()}
    expected = [names & built for names in planned if names & built]
    drawn = [
        {name for names, _, _ in layer for name in names.split(", ")}
        for layer in load_example("draw_concepts").LAYERS
    ]
    assert drawn[0] == {"pacavit_cli"}
    assert drawn[1:] == expected
