"""The computations of the demo for segmentation models: an image, and a pixel of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.explain import HeadClusters, RegionExplanation, SegmentationExplanation
from pacavit.explain.render import display_size

__all__ = ["Segmented"]


@dataclass(frozen=True, eq=False)
class Segmented:
    """A segmented image, of which the region under a pixel is explained.

    Attributes:
        model: name of the weights.
        classes: all classes of the model.
        source: the image file; ``explanation.path`` is the user's name of it.
        label: the chosen class; None for that of the pixel.
        pixel: (x, y) in the image.
        explanation: of the image, with one region.
    """

    model: str
    classes: tuple[str, ...]
    source: Path
    label: str | None
    pixel: tuple[int, int]
    explanation: SegmentationExplanation

    def matches(self, model: str, source: Path, label: str | None) -> bool:
        """Whether ``Models.explain`` with these arguments would return the same image."""
        return (self.model, self.source, self.label) == (model, source, label)

    @property
    def region(self) -> RegionExplanation:
        """The explained region."""
        return self.explanation.regions[0]

    @cached_property
    def size(self) -> tuple[int, int]:
        """(height, width) of the displayed picture."""
        return display_size(self.explanation.placement.image_size)

    def image_pixel(self, x: float, y: float) -> tuple[int, int]:
        """(x, y) of the displayed picture -> the pixel of the image there, or nearest to it."""
        height, width = self.explanation.placement.image_size
        column = int((x + 0.5) * width / self.size[1])
        row = int((y + 0.5) * height / self.size[0])
        return min(max(column, 0), width - 1), min(max(row, 0), height - 1)

    def displayed(self) -> tuple[int, int]:
        """(x, y) of the pixel in the displayed picture."""
        height, width = self.explanation.placement.image_size
        x, y = self.pixel
        return int((x + 0.5) * self.size[1] / width), int((y + 0.5) * self.size[0] / height)

    def likely(self, number: int) -> list[tuple[int, float]]:
        """The classes with the highest probabilities at the pixel, in descending order."""
        x, y = self.pixel
        return _highest(self.explanation.probabilities_at(y, x), number)

    def attended(self, number: int) -> list[tuple[int, float]]:
        """The clusters that the pixel attends to most; empty if the head does not say."""
        clusters: HeadClusters | None = self.explanation.clusters
        if clusters is None or clusters.attention is None:
            return []
        height, width = self.explanation.placement.image_size
        x, y = self.pixel
        where = torch.tensor([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1])
        found: Tensor = F.grid_sample(
            clusters.attention[None],
            where.view(1, 1, 1, 2),
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )
        return _highest(found.flatten(), number)


def _highest(values: Tensor, number: int) -> list[tuple[int, float]]:
    found = values.topk(min(number, len(values)))
    return list(zip(found.indices.tolist(), found.values.tolist(), strict=True))
