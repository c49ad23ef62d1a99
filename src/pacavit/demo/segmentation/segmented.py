"""The computations of the demo for segmentation models: an image, and a pixel of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.demo.explained import Explained, Place
from pacavit.explain import HeadClusters, RegionExplanation, SegmentationExplanation

__all__ = ["Segmented"]


@dataclass(frozen=True, eq=False)
class Segmented(Explained[SegmentationExplanation]):
    """A segmented image, of which the region under a pixel is explained.

    Attributes:
        pixel: (x, y) in the image.
    """

    pixel: tuple[int, int]

    @property
    def place(self) -> Place:
        """The pixel."""
        return Place(pixel=self.pixel)

    @property
    def region(self) -> RegionExplanation:
        """The explained region."""
        return self.explanation.regions[0]

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
