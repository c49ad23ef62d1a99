"""Where patches lie: from grids to the network's input, and from there to the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pacavit.data.formats.image import Region
from pacavit.errors import PacavitError
from pacavit.models import PacaViT
from pacavit.types import Grid

__all__ = ["Placement", "Sampling", "Window", "samplings", "upsample", "windows"]


class Window(NamedTuple):
    """The cells that a convolution or pooling reads along one axis.

    Output i reads the ``kernel`` cells from cell ``stride * i - padding``.

    Attributes:
        ceil: a last window that reaches beyond the edge is used too.
    """

    kernel: int
    stride: int
    padding: int
    ceil: bool


class Sampling(NamedTuple):
    """The center of patch i of an axis lies at pixel ``offset + stride * i``.

    The offset of plain patches is the middle of the first, (stride - 1) / 2. Strided 3 x 3
    convolutions, in every stage of the paper's models, are centered on the first pixel of a patch
    instead; heatmaps that ignored it would be half a patch (16 pixels) off in the last stage.
    """

    stride: int
    offset: float

    def followed_by(self, window: Window) -> Sampling:
        """The sampling after one more layer."""
        center = (window.kernel - 1) / 2 - window.padding
        return Sampling(self.stride * window.stride, self.offset + self.stride * center)


def windows(embed: nn.Module) -> list[Window]:
    """The windows of a stem or transition, in the order in which its layers run.

    Raises:
        PacavitError: its layers are not all square convolutions and poolings.
    """
    found = []
    layer: Any
    for layer in embed.modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            sides = [_sides(getattr(layer, name)) for name in ("kernel_size", "stride", "padding")]
            if _sides(layer.dilation) != (1, 1) or any(a != b for a, b in sides):
                raise PacavitError(
                    f"{type(embed).__name__} has a layer that is not square or dilated; where its "
                    "patches lie is not known, so nothing can be drawn over the image"
                )
            (kernel, _), (stride, _), (padding, _) = sides
            found.append(Window(kernel, stride, padding, getattr(layer, "ceil_mode", False)))
    return found


def samplings(model: nn.Module) -> list[Sampling]:
    """The sampling of each stage of a PacaViT, or of the one inside a wrapper.

    Raises:
        PacavitError: there is none inside.
    """
    found, sampling = [], Sampling(1, 0.0)
    stage: Any
    for stage in find_pacavit(model).stages:
        sampling = reduce(Sampling.followed_by, windows(stage.embed), sampling)
        found.append(sampling)
    return found


def find_pacavit(model: nn.Module) -> PacaViT:
    """The PacaViT that a network is, or has inside.

    Raises:
        PacavitError: there is none.
    """
    for module in model.modules():
        if isinstance(module, PacaViT):
            return module
    raise PacavitError(
        f"{type(model).__name__} is not a network of this package, so it has no clusters to show; "
        "choose a method that works on any network, such as grad_cam"
    )


def upsample(maps: Tensor, sampling: Sampling, size: tuple[int, int]) -> Tensor:
    """Maps of a grid -> maps of the image: (..., H, W) -> (..., height, width), bilinearly."""
    rows, columns = (
        _interpolation((torch.arange(pixels) - sampling.offset) / sampling.stride, cells)
        for pixels, cells in zip(size, maps.shape[-2:], strict=True)
    )
    return rows.to(maps) @ maps @ columns.T.to(maps)


@dataclass(frozen=True)
class Placement:
    """Where the network's input lies in the original image.

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

    def grid_region(self, grid: Grid, sampling: Sampling) -> Region:
        """The area of the image that a grid covers; it may reach beyond the edge."""
        first = sampling.offset + 0.5 - sampling.stride / 2  # half a stride before its center
        height, width = grid.height * sampling.stride, grid.width * sampling.stride
        return Region(first, first, height, width).inside(self.region, self.input_size)

    def input_positions(self) -> list[tuple[Tensor, Tensor]]:
        """Where the rows and the columns of the image lie in the input.

        Returns:
            For each axis positions (pixels,) float, in pixels of the input counted from the center
            of its first, and (pixels,) bool, whether they are inside the input.
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

        Where preprocessing cropped the image the maps are NaN.
        """
        if tuple(maps.shape[-2:]) != self.input_size:
            raise ValueError(f"maps of {tuple(maps.shape[-2:])} for an input of {self.input_size}")
        weights = []
        for (position, seen), cells in zip(self.input_positions(), self.input_size, strict=True):
            matrix = _interpolation(position, cells)
            matrix[~seen] = torch.nan
            weights.append(matrix.to(maps))
        rows, columns = weights
        # Rows and columns of NaN make the whole row or column of the map NaN, as intended.
        return rows @ maps @ columns.T


def _interpolation(position: Tensor, cells: int) -> Tensor:
    """Positions (n,) in units of cells -> weights (n, cells) of linear interpolation.

    Beyond the centers of the first and the last cell the values stay constant.
    """
    position = position.clamp(0, cells - 1)
    return (1 - (position[:, None] - torch.arange(cells)).abs()).clamp(min=0)


def _sides(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
