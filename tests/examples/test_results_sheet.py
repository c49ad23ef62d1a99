"""The picture of good and bad predictions, of networks that have learned nothing."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from pacavit import api, recipes
from pacavit.engine import build, save_weights

LoadExample = Callable[[str], ModuleType]


@pytest.mark.parametrize(
    ("name", "changes", "columns"),
    [
        ("shapes_masks_nano", ["task.head_options={channels = 8}"], 4),
        ("shapes_boxes_nano", [], 3),
    ],
)
def test_it_draws_good_and_bad_images(
    load_example: LoadExample,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    changes: list[str],
    columns: int,
) -> None:
    recipe = recipes.load(name, ["data.options.test_size=3", *changes])
    info = build.data_source(recipe).info
    weights, picture = tmp_path / "w.safetensors", tmp_path / "sheet.jpg"
    save_weights(weights, build.task(recipe, info).model, recipe, info, {})
    api.evaluate(weights, out=tmp_path / "evaluation")
    words = ["results_sheet.py", str(tmp_path / "evaluation"), "--out", str(picture)]
    monkeypatch.setattr(sys, "argv", [*words, "--best", "1", "--worst", "1", "--longer", "100"])
    load_example("results_sheet").main()
    with Image.open(picture) as image:
        assert image.width == columns * 106 + 6


def test_a_folder_without_an_evaluation_is_named(
    load_example: LoadExample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["results_sheet.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="is no folder of an evaluation"):
        load_example("results_sheet").main()
