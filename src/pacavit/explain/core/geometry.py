"""Positions of patches: from grids to the network's input, and from there to the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pacavit.data.placement import interpolation
from pacavit.errors import PacavitError
from pacavit.models import PacaViT

__all__ = ["Sampling", "Window", "samplings", "upsample", "windows"]


class Window(NamedTuple):
    """The cells that a convolution or pooling reads along one axis.

    Output i reads the ``kernel`` cells from cell ``stride * i - padding``.

    Attributes:
        ceil: a last window that extends beyond the edge is used too, as in ``ceil_mode``.
    """

    kernel: int
    stride: int
    padding: int
    ceil: bool


class Sampling(NamedTuple):
    """Positions of patch centers along an axis: that of patch i is ``offset + stride * i`` pixels.

    The offset of plain patches is the middle of the first, (stride - 1) / 2. The strided 3 x 3
    convolutions in the paper's models are centered on the first pixel of a patch instead. Ignoring
    that would shift heatmaps of the last stage by half a patch (16 pixels).
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
                    f"{type(embed).__name__} has a layer that is dilated or not square; the "
                    "positions of its patches are unknown, so nothing can be drawn over the image"
                )
            (kernel, _), (stride, _), (padding, _) = sides
            found.append(Window(kernel, stride, padding, getattr(layer, "ceil_mode", False)))
    return found


def samplings(model: nn.Module) -> list[Sampling]:
    """The sampling of each stage of a PacaViT, which may be inside a wrapper.

    Raises:
        PacavitError: the network contains no PacaViT.
    """
    found, sampling = [], Sampling(1, 0.0)
    stage: Any
    for stage in find_pacavit(model).stages:
        sampling = reduce(Sampling.followed_by, windows(stage.embed), sampling)
        found.append(sampling)
    return found


def find_pacavit(model: nn.Module) -> PacaViT:
    """The PacaViT in a network, which may be the network itself.

    Raises:
        PacavitError: the network contains none.
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
        interpolation((torch.arange(pixels) - sampling.offset) / sampling.stride, cells)
        for pixels, cells in zip(size, maps.shape[-2:], strict=True)
    )
    return rows.to(maps) @ maps @ columns.T.to(maps)


def _sides(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
