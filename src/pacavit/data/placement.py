"""Where an image lies in the network's input, so that outputs can be mapped back to its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pacavit.types import Grid

__all__ = ["Placement", "Region", "interpolation"]


class Region(NamedTuple):
    """A rectangle in an image, in pixels; fractions of pixels are allowed."""

    top: float
    left: float
    height: float
    width: float

    def inside(self, outer: Region, size: tuple[int, int]) -> Region:
        """This region of a picture of ``size`` that shows ``outer``, in the pixels of the image."""
        rows, columns = outer.height / size[0], outer.width / size[1]
        return Region(
            outer.top + self.top * rows,
            outer.left + self.left * columns,
            self.height * rows,
            self.width * columns,
        )


@dataclass(frozen=True)
class Placement:
    """The region of the original image that became the network's input.

    Attributes:
        image_size: (height, width) of the original, in pixels.
        region: the area of the image that became the network's input.
        input_size: (height, width) of that input, in its own pixels.
    """

    image_size: tuple[int, int]
    region: Region
    input_size: tuple[int, int]

    def resized(self, image_size: tuple[int, int]) -> Placement:
        """The same for the image resized to another (height, width)."""
        rows, columns = (new / old for new, old in zip(image_size, self.image_size, strict=True))
        top, left, height, width = self.region
        region = Region(top * rows, left * columns, height * rows, width * columns)
        return Placement(image_size, region, self.input_size)

    def grid_region(self, grid: Grid, stride: int, offset: float) -> Region:
        """The region of the image that a grid of patches covers; it may extend beyond the edge.

        Args:
            grid: height and width in patches.
            stride: pixels of the input from one patch to the next.
            offset: pixel of the input at the center of the first patch.
        """
        first = offset + 0.5 - stride / 2
        height, width = grid.height * stride, grid.width * stride
        return Region(first, first, height, width).inside(self.region, self.input_size)

    def input_positions(self) -> list[tuple[Tensor, Tensor]]:
        """The positions of the image's rows and columns in the network's input.

        Returns:
            For each axis: positions (pixels,) float, in pixels of the input from the center of its
            first pixel; and whether they are inside the input, (pixels,) bool.
        """
        found = []
        for pixels, start, length, cells in zip(
            self.image_size, self.region[:2], self.region[2:], self.input_size, strict=True
        ):
            fraction = (torch.arange(pixels) + 0.5 - start) / length
            found.append((fraction * cells - 0.5, (fraction >= 0) & (fraction <= 1)))
        return found

    def seen_pixels(self) -> tuple[Tensor, Tensor]:
        """The rows and the columns of the image inside the input: (rows,), (columns,) long."""
        rows, columns = (seen.nonzero()[:, 0] for _, seen in self.input_positions())
        return rows, columns

    @property
    def has_border(self) -> bool:
        """Whether preprocessing cropped the image."""
        seen = tuple(len(pixels) for pixels in self.seen_pixels())
        return seen != self.image_size

    def restore(self, maps: Tensor) -> Tensor:
        """(..., height, width) of the input -> (..., H, W) of the original, bilinearly.

        The maps are NaN where preprocessing cropped the image.
        """
        if tuple(maps.shape[-2:]) != self.input_size:
            raise ValueError(f"maps of {tuple(maps.shape[-2:])} for an input of {self.input_size}")
        weights = []
        for (position, seen), cells in zip(self.input_positions(), self.input_size, strict=True):
            matrix = interpolation(position, cells)
            matrix[~seen] = torch.nan
            weights.append(matrix.to(maps))
        rows, columns = weights
        # Rows and columns of NaN make the whole row or column of the map NaN, as intended.
        return rows @ maps @ columns.T


def interpolation(position: Tensor, cells: int) -> Tensor:
    """Positions (n,) in units of cells -> weights (n, cells) of linear interpolation.

    Beyond the centers of the first and the last cell, values are extended constantly.
    """
    position = position.clamp(0, cells - 1)
    return (1 - (position[:, None] - torch.arange(cells)).abs()).clamp(min=0)
