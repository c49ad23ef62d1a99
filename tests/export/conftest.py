"""A small classifier, and the files that it is exported to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from timm.models import register_model
from torch import Tensor, nn

from pacavit import api, recipes
from pacavit.data import DATASETS
from pacavit.engine import build, save_weights
from pacavit.recipes.schema import ModelConfig
from pacavit.tasks.classification import Calibration

Export = Callable[..., Path]


class Blobs(nn.Module):
    """(B, 3, H, W) -> (B, classes), of images of any size."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.norm(self.conv(x)).relu()
        return self.head(maps.mean((2, 3)) + maps.amax((2, 3)))


@register_model
def export_blobs(
    pretrained: bool = False,
    pretrained_cfg: object = None,
    pretrained_cfg_overlay: object = None,
    cache_dir: object = None,
    num_classes: int = 10,
    in_chans: int = 3,
    drop_path_rate: float = 0.0,
) -> Blobs:
    return Blobs(num_classes)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of digits, with a temperature; tests must not change it."""
    torch.manual_seed(0)
    info = DATASETS.get("digits")().info
    recipe = recipes.load("digits").model_copy(
        update={"model": ModelConfig.model_validate({"name": "export_blobs"})}
    )
    task = build.task(recipe, info).eval()
    path = tmp_path_factory.mktemp("weights") / "blobs.safetensors"
    calibration = Calibration(1.5, 100, 0.2, 0.1, 0.3, 0.2)
    save_weights(path, task.model, recipe, info, {"accuracy": 0.5}, calibration=calibration)
    return path


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Export:
    """Export these weights to a file of a name, once for the same arguments."""
    made: dict[tuple[object, ...], Path] = {}

    def run(name: str, **options: object) -> Path:
        key = (name, *options.items())
        if key not in made:
            path = tmp_path_factory.mktemp("exported") / name
            api.export(weights, path, **options)  # type: ignore[arg-type]
            made[key] = path
        return made[key]

    return run
