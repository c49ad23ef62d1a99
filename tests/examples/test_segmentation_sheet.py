"""The picture of explained segmentations, from a network that has learned nothing."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from pacavit import recipes
from pacavit.engine import build, save_weights

LoadExample = Callable[[str], ModuleType]


def test_it_draws_a_row_per_image(
    load_example: LoadExample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ["data.options.test_size=3", "task.head_options={channels = 8}"]
    recipe = recipes.load("shapes_masks_nano", small)
    info = build.data_source(recipe).info
    weights, picture = tmp_path / "w.safetensors", tmp_path / "sheet.jpg"
    save_weights(weights, build.task(recipe, info).model, recipe, info, {})
    words = ["segmentation_sheet.py", str(weights), "--images", "0,0.9", "--out", str(picture)]
    monkeypatch.setattr(sys, "argv", words)
    load_example("segmentation_sheet").main()
    with Image.open(picture) as image:
        assert image.width == 7 * 246 + 6
        assert image.height > 2 * 240


def test_the_pixel_is_in_the_largest_region_of_the_class(load_example: LoadExample) -> None:
    labels = torch.tensor([[1, 0, 1], [0, 1, 1], [0, 1, 1]], dtype=torch.uint8)
    example = load_example("segmentation_sheet")
    assert example.pixel_of(labels, 1) == (2, 0)
    assert example.pixel_of(labels, 0) == (0, 1)
