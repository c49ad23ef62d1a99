"""The picture of clusters beside objects, from a network that has learned nothing."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from pacavit import DATASETS, recipes
from pacavit.engine import build, save_weights

LoadExample = Callable[[str], ModuleType]


def untrained(name: str, folder: Path) -> Path:
    """Weights of a recipe's model that has learned nothing."""
    recipe = recipes.load(name, ["data.options.test_size=8"] if name == "shapes_nano" else [])
    info = DATASETS.get(recipe.data.name)().info
    path = folder / "w.safetensors"
    model = build.task(recipe, info).model
    save_weights(path, model, recipe, info, {})
    return path


def test_it_draws_scenes_objects_and_clusters(
    load_example: LoadExample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, picture = untrained("shapes_nano", tmp_path), tmp_path / "clusters.png"
    monkeypatch.setattr(sys, "argv", ["partition_sheet.py", str(weights), "--out", str(picture)])
    load_example("partition_sheet").main()
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width == pytest.approx(8 / 5 * image.height, rel=0.05)


def test_data_without_masks_are_refused(
    load_example: LoadExample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["partition_sheet.py", str(untrained("digits", tmp_path))])
    with pytest.raises(SystemExit, match="no masks"):
        load_example("partition_sheet").main()
