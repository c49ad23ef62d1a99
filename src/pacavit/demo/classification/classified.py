"""The computations of the demo for classifiers: masks at a threshold, clusters of a patch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pacavit.data.placement import Region
from pacavit.demo.explained import Explained
from pacavit.errors import DataError, UnknownNameError
from pacavit.explain import ImageExplanation, Placement, StageClusters, binary_mask
from pacavit.explain.render import thumbnail

__all__ = ["Classified", "attended", "best_patch", "find_patch", "mask", "patch_region"]


@dataclass(frozen=True, eq=False)
class Classified(Explained[ImageExplanation]):
    """A classified image, of which a class is explained."""

    @cached_property
    def placement(self) -> Placement:
        """The network's view in pixels of the picture."""
        return self.explanation.placement.resized(self.size)

    @cached_property
    def picture(self) -> Tensor:
        """The displayed image: (3, height, width) uint8."""
        return thumbnail(self.explanation.image, self.placement.image_size)

    def heatmap(self, method: str) -> Tensor:
        """A map over the picture: (height, width), NaN outside the network's view."""
        return self.placement.restore(self.explanation.maps[method])

    def clusters(self, stage: int) -> StageClusters:
        """The clusters of a stage.

        Raises:
            UnknownNameError: the stage has none.
        """
        for clusters in self.explanation.stages:
            if clusters.stage == stage:
                return clusters
        known = [str(clusters.stage) for clusters in self.explanation.stages]
        raise UnknownNameError("stage with clusters", str(stage), known)


def mask(explained: Classified, method: str, threshold: str, fraction: float) -> Tensor:
    """The binary mask of a map over the picture: (height, width) bool.

    Args:
        explained: the image.
        method: of the map.
        threshold: one of those of ``binary_mask``.
        fraction: of the area, or of the map's sum; ignored by "otsu".
    """
    value = None if threshold == "otsu" else fraction
    return binary_mask(explained.heatmap(method)[None], threshold, value)[0]


def best_patch(clusters: StageClusters) -> tuple[int, int]:
    """Row and column of the patch with the largest weight in the most important cluster."""
    row, column = divmod(int(clusters.weights[clusters.ranking()[0]].argmax()), clusters.grid.width)
    return row, column


def find_patch(
    explained: Classified, clusters: StageClusters, x: float, y: float
) -> tuple[int, int]:
    """Row and column of the patch at, or nearest to, a pixel of the picture."""
    region, grid = explained.placement.grid_region(clusters.grid, *clusters.sampling), clusters.grid
    row = math.floor((y + 0.5 - region.top) / region.height * grid.height)
    column = math.floor((x + 0.5 - region.left) / region.width * grid.width)
    return min(max(row, 0), grid.height - 1), min(max(column, 0), grid.width - 1)


def patch_region(explained: Classified, clusters: StageClusters, row: int, column: int) -> Region:
    """The area of a patch in the picture."""
    region = explained.placement.grid_region(clusters.grid, *clusters.sampling)
    height, width = region.height / clusters.grid.height, region.width / clusters.grid.width
    return Region(region.top + row * height, region.left + column * width, height, width)


def attended(clusters: StageClusters, row: int, column: int) -> list[tuple[int, float]]:
    """The clusters that a patch attends to, with their attention weights, the largest first.

    Raises:
        DataError: there is no such patch on the grid.
    """
    grid = clusters.grid
    if not (0 <= row < grid.height and 0 <= column < grid.width):
        raise DataError(
            f"no patch in row {row + 1}, column {column + 1}: stage {clusters.stage} has "
            f"{grid.height} x {grid.width}"
        )
    fractions = clusters.attention[row * grid.width + column]
    order = torch.argsort(fractions, descending=True, stable=True).tolist()
    return [(index, float(fractions[index])) for index in order if clusters.valid[index]]
