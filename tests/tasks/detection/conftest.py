"""Tiny detectors, images with objects, and facts about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from pacavit.data import (
    DATASETS,
    DataInfo,
    DataSource,
    MemoryObjects,
    ObjectInfo,
    Objects,
    Split,
)
from pacavit.data.formats.rle import encode_masks
from pacavit.detectors import DETECTORS, Detected, Detector, Target
from pacavit.models import Pyramid
from pacavit.tasks.detection import (
    DetectionConfig,
    DetectionTask,
    InstanceSegmentationConfig,
    InstanceSegmentationTask,
)

NAMES = ("disc", "square")
INFO = DataInfo(
    "tiny objects",
    "test",
    NAMES,
    (32, 48),
    (0.5, 0.25, 0.75),
    (0.2, 0.2, 0.2),
    objects=ObjectInfo((3, 7), ((255, 0, 0), (0, 0, 255))),
)
_SIDE = 4


class TinyBackbone(nn.Module):
    """A map of stride 2 that depends on the mean of the image, so that padding would change it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> list[Tensor]:
        first = self.first(images).relu()
        return [first + first.mean((2, 3), keepdim=True)]


class TinyDetector(Detector):
    """One object an image: its box from the mean of the map, one class, one score.

    Args:
        backbone: one map.
        num_classes: K.
        found: number of copies of the object that are returned.
    """

    has_masks = False
    loss_names: ClassVar[tuple[str, ...]] = ("classes", "boxes")

    def __init__(self, backbone: Pyramid, num_classes: int, *, found: int = 3) -> None:
        super().__init__(backbone, num_classes)
        if found < 1:
            raise ValueError("found must be at least 1")
        self.found = found
        self.classify = nn.Linear(backbone.channels[0], num_classes)
        self.place = nn.Linear(backbone.channels[0], 4)

    def losses(
        self, images: Tensor, targets: Sequence[Target], sizes: Sequence[tuple[int, int]]
    ) -> dict[str, Tensor]:
        logits, boxes = self._heads(images)
        scale = boxes.new_tensor([[width, height, width, height] for height, width in sizes])
        classes, places = logits.sum() * 0, boxes.sum() * 0
        for row, target in enumerate(targets):
            if len(target.labels):
                classes = classes + nn.functional.cross_entropy(logits[row], target.labels[0])
                places = places + (boxes[row] - target.boxes[0] / scale[row]).abs().mean()
        return {"classes": classes / len(images), "boxes": places / len(images)}

    def _heads(self, images: Tensor) -> tuple[Tensor, Tensor]:
        means = self.backbone(images)[0].mean((2, 3))
        return self.classify(means), self.place(means).sigmoid()

    def forward(self, images: Tensor) -> list[Detected]:
        logits, boxes = self._heads(images)
        height, width = images.shape[2:]
        scores, labels = logits.float().softmax(1).max(1)
        boxes = boxes.float() * boxes.new_tensor([width, height, width, height])
        corners = torch.cat(
            [boxes[:, :2].minimum(boxes[:, 2:]), boxes[:, :2].maximum(boxes[:, 2:])], 1
        )
        falling = 1 / torch.arange(1, self.found + 1)
        return [
            Detected(
                corners[row].expand(self.found, 4),
                labels[row].expand(self.found),
                scores[row] * falling,
                self._box_masks(images),
            )
            for row in range(len(images))
        ]

    def _box_masks(self, images: Tensor) -> Tensor | None:
        return None

    def class_logits(self, maps: Sequence[Tensor], size: tuple[int, int], boxes: Tensor) -> Tensor:
        logits: Tensor = self.classify(maps[0].mean((2, 3))).float()
        return logits

    def classifiers(self) -> Sequence[nn.Module]:
        return [self.classify]


class TinyMaskDetector(TinyDetector):
    """The same, whose masks fill the boxes; it learns the mean of the masks."""

    has_masks = True
    loss_names = ("classes", "boxes", "masks")

    def __init__(self, backbone: Pyramid, num_classes: int, *, found: int = 3) -> None:
        super().__init__(backbone, num_classes, found=found)
        self.fill = nn.Parameter(torch.zeros(()))

    def losses(
        self, images: Tensor, targets: Sequence[Target], sizes: Sequence[tuple[int, int]]
    ) -> dict[str, Tensor]:
        losses = super().losses(images, targets, sizes)
        fills = self.fill * 0
        for target in targets:
            assert target.masks is not None
            assert target.masks.shape[1:] == images.shape[2:]
            if len(target.masks):
                fills = fills + (self.fill.sigmoid() - target.masks.float().mean()).abs()
        return {**losses, "masks": fills / len(images)}

    def _box_masks(self, images: Tensor) -> Tensor | None:
        return torch.ones(self.found, _SIDE, _SIDE)


def _tiny_objects(num: int, seed: int = 0, size: tuple[int, int] = (32, 48)) -> MemoryObjects:
    """Images (num, 3, H, W) with one to four bright rectangles each, and their objects."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 90, (num, 3, *size), generator=generator, dtype=torch.uint8)
    found = []
    for row in range(num):
        number = int(torch.randint(1, 5, (1,), generator=generator))
        labels = torch.randint(0, 2, (number,), generator=generator)
        masks = torch.zeros(number, *size, dtype=torch.bool)
        boxes = torch.zeros(number, 4)
        for k in range(number):
            height, width = torch.randint(5, 14, (2,), generator=generator).tolist()
            top = int(torch.randint(0, size[0] - height, (1,), generator=generator))
            left = int(torch.randint(0, size[1] - width, (1,), generator=generator))
            masks[k, top : top + height, left : left + width] = True
            boxes[k] = torch.tensor([left, top, left + width, top + height])
            images[row, int(labels[k]), masks[k]] = 220
        crowd = torch.zeros(number, dtype=torch.bool)
        areas = masks.flatten(1).sum(1).float()
        found.append(Objects(boxes, labels, crowd, areas, size, row + 1, encode_masks(masks)))
    return MemoryObjects(images, found, 2)


class TinyObjects(DataSource):
    """Rectangles in memory."""

    default_val_size = 4
    targets = ("boxes", "instances")

    def __init__(
        self, root: Path | None = None, *, val_size: int | None = None, target: str = "boxes"
    ) -> None:
        super().__init__(root, val_size=val_size)

    @property
    def info(self) -> DataInfo:
        return INFO

    def load(self, split: Split) -> MemoryObjects:
        return _tiny_objects(8 if split == "train" else 4, {"train": 0, "val": 1, "test": 2}[split])


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny detectors and the tiny data set are registered, for the time of a test."""
    for registry, entries in (
        (DETECTORS, {"tiny": TinyDetector, "tiny_masks": TinyMaskDetector}),
        (DATASETS, {"tiny_objects": TinyObjects}),
    ):
        registry.names()  # loads the plug-ins first
        monkeypatch.setattr(registry, "_entries", {**registry._entries, **entries})


@pytest.fixture(name="info")
def _info() -> DataInfo:
    """Facts about images of 32 x 48 pixels with two classes."""
    return INFO


@pytest.fixture
def tiny_objects() -> Callable[..., MemoryObjects]:
    """Make a set from its number of images, a seed and a size, see ``_tiny_objects``."""
    return _tiny_objects


@pytest.fixture
def make_task() -> Callable[..., DetectionTask]:
    """Make a task of a tiny network with fixed weights, from fields of its config."""

    def make(*, masks: bool = False, **config: Any) -> DetectionTask:
        torch.manual_seed(0)
        backbone = Pyramid(TinyBackbone(), (8,), (2,))
        detector = TinyMaskDetector if masks else TinyDetector
        kind = InstanceSegmentationTask if masks else DetectionTask
        made: type[DetectionConfig] = InstanceSegmentationConfig if masks else DetectionConfig
        task = kind(detector(backbone, 2), made.model_validate_json(json.dumps(config)), len(NAMES))
        task.eval()
        return task

    return make
