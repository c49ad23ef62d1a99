"""The picture of clusters, from a network that has learned nothing."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from pacavit import DATASETS, Assignment, Grid, recipes
from pacavit.engine import build, save_weights

LoadExample = Callable[[str], ModuleType]


@pytest.mark.parametrize("size", [24, 32])
def test_it_draws_the_images_of_a_model(
    load_example: LoadExample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    recipe = recipes.load("digits", [f"task.image_size={size}"])
    info = DATASETS.get("digits")().info
    weights, picture = tmp_path / "w.safetensors", tmp_path / "clusters.png"
    save_weights(weights, build.task(recipe, info).model, recipe, info, {})
    monkeypatch.setattr(sys, "argv", ["cluster_maps.py", str(weights), "--out", str(picture)])
    load_example("cluster_maps").main()
    with Image.open(picture) as image:
        assert image.format == "PNG"


def test_images_and_grids_need_not_be_square(load_example: LoadExample) -> None:
    maps = []
    for grid in (Grid(6, 8), Grid(3, 4)):
        weights = torch.rand(2, 5, grid.num_patches).softmax(2)
        maps.append((grid, Assignment(weights, torch.zeros(2, 5))))
    images = torch.zeros(2, 3, 24, 32, dtype=torch.uint8)
    figure = load_example("cluster_maps").draw(images, ["a", "b"], maps)
    shapes = [[drawn.get_array().shape[:2] for drawn in axis.images] for axis in figure.axes]
    assert shapes[2] == [(24, 32), (6, 8)]
    assert shapes[4] == [(24, 32), (3, 4)]
    assert {tuple(axis.images[-1].get_extent()) for axis in figure.axes[2:]} == {
        (-0.5, 31.5, 23.5, -0.5)
    }
