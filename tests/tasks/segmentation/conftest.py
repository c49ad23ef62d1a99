"""A tiny segmentation network, and facts about data for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pacavit.data import DataInfo, MaskInfo
from pacavit.heads import HeadOutput, SegmentationHead
from pacavit.models import Pyramid
from pacavit.tasks.segmentation import SegmentationConfig, SegmentationTask, Segmenter

NAMES = ("sky", "road", "car")
COLORS = ((0, 0, 255), (90, 90, 90), (255, 0, 0))
INFO = DataInfo(
    "masks",
    "test",
    NAMES,
    (12, 16),
    (0.5, 0.25, 0.75),
    (0.2, 0.2, 0.2),
    MaskInfo((1, 2, 3), COLORS),
)


class TinyBackbone(nn.Module):
    """Maps of strides 2 and 4."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> list[Tensor]:
        first = self.first(images)
        return [first, self.second(first.relu())]


class TinyHead(SegmentationHead):
    """Logits that depend on the mean of the whole image, so that padding would change them."""

    loss_weights = MappingProxyType({"clusters": 0.4})
    cluster_logits = "clusters"

    def __init__(self, channels: Sequence[int], strides: Sequence[int], num_classes: int) -> None:
        super().__init__(channels, strides, num_classes)
        self.clusters = nn.Conv2d(channels[0], num_classes, 1)
        self.classify = nn.Conv2d(channels[0], num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> HeadOutput:
        first = maps[0]
        mixed = first + first.mean((2, 3), keepdim=True)
        mixed = mixed + maps[1].mean((1, 2, 3), keepdim=True)
        return HeadOutput(self.classify(mixed), {"clusters": self.clusters(mixed)})


class AllPixelsHead(TinyHead):
    """The same, with losses that are means over all pixels."""

    mean_over_labeled = False


@pytest.fixture(name="info")
def _info() -> DataInfo:
    """Facts about images of 12 x 16 pixels with three classes."""
    return INFO


@pytest.fixture
def make_task() -> Callable[..., SegmentationTask]:
    """Make a task of the tiny network with fixed weights, from fields of its config."""

    def make(head: str = "labeled", **config: Any) -> SegmentationTask:
        torch.manual_seed(0)
        backbone = Pyramid(TinyBackbone(), (4, 6), (2, 4))
        kind = TinyHead if head == "labeled" else AllPixelsHead
        model = Segmenter(backbone, kind(backbone.channels, backbone.strides, len(NAMES)))
        made = SegmentationConfig.model_validate_json(json.dumps(config))
        task = SegmentationTask(model, made, len(NAMES))
        task.eval()
        return task

    return make
