"""Cropping, resizing and normalization as part of a graph, for images of any size.

Resizing is two products with matrices that are built from the size of the image inside the graph,
first along the width, then along the height, with the weights and the roundings of what the
preprocessing of images uses: torch's antialiased resizing of bytes (weights of 15 bits), and
Pillow's (22 bits). Sizes and weights are whole numbers, and sums of products are exact, so that
engines agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pacavit.data import DataInfo, Preprocess, normalize
from pacavit.data.formats.image import center_region
from pacavit.errors import PacavitError
from pacavit.tasks.classification import ClassificationPreprocess
from pacavit.tasks.classification.crops import CenterCrop
from pacavit.tasks.graph import Graph
from pacavit.tasks.segmentation import SegmentationPreprocess

__all__ = ["PixelGraph", "pixel_input"]

_MAX_BITS = 22  # of weights, in torch and in Pillow
_BITS_16 = 2**15 - 0.5  # the largest weight of torch, in 16 bits with sign
_TORCH, _PILLOW = 2, 3  # bytes of a weight


def bilinear(distance: Tensor) -> Tensor:
    """Weights of linear interpolation at distances in pixels, at least 0."""
    return (1 - distance).clamp(min=0)


def bicubic(distance: Tensor) -> Tensor:
    """Pillow's weights of cubic interpolation (Keys, a = -0.5) at distances of at least 0."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))


@dataclass(frozen=True)
class Axis:
    """How one side of an image is cropped and resized; all numbers are int64 scalars.

    Attributes:
        start: first pixel of the region that is resized.
        kept: pixels of the region.
        total: pixels that it is resized to.
        first: first of these pixels that is used.
    """

    start: Tensor
    kept: Tensor
    total: Tensor
    first: Tensor


class Weights(NamedTuple):
    """Weights by which resized pixels are sums of pixels.

    Attributes:
        numbers: (count, L) whole numbers in float32.
        unit: float32 scalar, a power of 2 which their sums are divided by.
    """

    numbers: Tensor
    unit: Tensor


def resizing_weights(
    places: Tensor,
    axis: Axis,
    count: int,
    kernel: Callable[[Tensor], Tensor],
    *,
    fixed_bits: bool,
) -> Weights:
    """Weights (count, L) by which ``count`` resized pixels are sums of L pixels.

    Args:
        places: (L,) int64, 0 to L - 1.
        axis: of the image.
        count: number of pixels that are used.
        kernel: weights by distance.
        fixed_bits: weights of 22 bits, as Pillow has them; if False, of as many bits as 16 can
            hold, as torch has them.
    """
    weights = _fractions(places, axis, count, kernel)
    powers = torch.tensor([2.0**bit for bit in range(1, _MAX_BITS + 1)], device=places.device)
    unit = powers[-1]
    if not fixed_bits:
        unit = torch.where(weights.max() * powers < _BITS_16, powers, 1.0).max()
    rounded = (weights * unit + 0.5).floor()
    return Weights(rounded.float(), unit)


def _fractions(
    places: Tensor, axis: Axis, count: int, kernel: Callable[[Tensor], Tensor]
) -> Tensor:
    """(count, L) float64 with sum 1 over L; arguments are those of ``resizing_weights``."""
    source = places[None] - axis.start
    target = torch.arange(count, device=places.device)[:, None] + axis.first
    # Twice the distance between the centers of the pixels, times the number of resized pixels.
    distance = ((2 * source + 1) * axis.total - (2 * target + 1) * axis.kept).abs()
    reach = 2 * torch.maximum(axis.kept, axis.total)
    weights = kernel(distance.double() / reach.double())
    inside = (source >= 0) & (source < axis.kept)
    weights = torch.where(inside, weights, 0.0)
    return weights / weights.sum(1, keepdim=True)


def _resize(pixels: Tensor, weights: Weights, bytes_of_weights: int) -> Tensor:
    """The last axis (..., L) of whole numbers in 0..255 -> (..., count), rounded as bytes are.

    Weights are split into bytes, so that float32 holds the sums of products exactly; some engines
    have no other arithmetic. What the sums are divided by is a power of 2.
    """
    rest = weights.numbers
    total = torch.zeros_like(weights.unit)  # in units of 256
    for place in reversed(range(bytes_of_weights)):
        part = (rest / 256**place).floor()
        rest = rest - part * 256**place
        sums = pixels @ part.T
        total = total + (sums * 256 ** (place - 1) if place else (sums / 256).floor())
    return ((total + weights.unit / 512) / (weights.unit / 256)).floor().clamp(0, 255)


def _resize_both(pixels: Tensor, rows: Weights, columns: Weights, bytes_of_weights: int) -> Tensor:
    """(B, 3, H, W) -> (B, 3, height, width): columns first, as torch and Pillow do."""
    narrow = _resize(pixels, columns, bytes_of_weights)
    return _resize(narrow.transpose(2, 3), rows, bytes_of_weights).transpose(2, 3)


class PixelGraph(Graph):
    """Pixels (B, H, W, 3) uint8 -> the outputs of a graph.

    Args:
        resize: (B, 3, H, W) float in 0..255 -> (B, 3, height, width).
        graph: of the task.
        info: of the data, with mean and standard deviation.
    """

    def __init__(self, resize: nn.Module, graph: Graph, info: DataInfo) -> None:
        super().__init__()
        self.resize, self.inner, self.info = resize, graph, info
        self.outputs, self.channels, self.strides = graph.outputs, graph.channels, graph.strides

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs."""
        pixels = self.resize(images.permute(0, 3, 1, 2).float())
        found: tuple[Tensor, ...] = self.inner(normalize(pixels, self.info))
        return found


class _Cropped(nn.Module):
    """(B, 3, H, W) -> (B, 3, height, width), around the center, as a classifier gets it.

    Args:
        preprocess: of the task, without augmentation.
    """

    def __init__(self, preprocess: ClassificationPreprocess) -> None:
        super().__init__()
        self.crop = preprocess.crop if isinstance(preprocess.crop, CenterCrop) else None
        self.cubic = self.crop is not None and self.crop.interpolation == "bicubic"
        side = 0 if self.crop is None else self.crop.size
        self.size = preprocess.stored_size if self.crop is None else (side, side)
        self.final: nn.Module = nn.Identity()
        if self.size != preprocess.transform.size:  # images are stored in another size
            self.final = _Enlarged(self.size, preprocess.transform.size)

    def forward(self, pixels: Tensor) -> Tensor:
        """Resize twice: to the size of stored images, then to that of the network's input."""
        places = [torch.arange(side, device=pixels.device) for side in pixels.shape[2:]]
        axes = self._axes(places[0][-1] + 1, places[1][-1] + 1)
        kernel = bicubic if self.cubic else bilinear
        rows, columns = (
            resizing_weights(each, axis, count, kernel, fixed_bits=self.crop is not None)
            for each, axis, count in zip(places, axes, self.size, strict=True)
        )
        resized = _resize_both(pixels, rows, columns, _TORCH if self.crop is None else _PILLOW)
        final: Tensor = self.final(resized)
        return final

    def _axes(self, height: Tensor, width: Tensor) -> tuple[Axis, Axis]:
        """How rows and columns are resized."""
        zero = torch.zeros_like(height)
        if self.crop is not None:
            shorter = torch.minimum(height, width)
            totals = [
                torch.div(self.crop.shorter_side * side, shorter, rounding_mode="floor")
                for side in (height, width)
            ]
            # Half a pixel is rounded to the even one, as Python does.
            firsts = [((total - self.crop.size) / 2.0).round().long() for total in totals]
            first, second = (
                Axis(zero, side, total, first)
                for side, total, first in zip((height, width), totals, firsts, strict=True)
            )
            return first, second
        target_height, target_width = self.size
        wide = height * target_width < width * target_height
        kept_height = torch.where(wide, height, _in_proportion(width, self.size))
        kept_width = torch.where(wide, _in_proportion(height, self.size[::-1]), width)
        return (
            _centered(height, torch.minimum(kept_height, height), target_height),
            _centered(width, torch.minimum(kept_width, width), target_width),
        )


def _in_proportion(side: Tensor, size: tuple[int, int]) -> Tensor:
    """``side`` times the ratio of a size, rounded, at least 1."""
    return (side * size[0] / size[1]).round().long().clamp(min=1)


def _centered(side: Tensor, kept: Tensor, total: int) -> Axis:
    start = torch.div(side - kept, 2, rounding_mode="floor")
    return Axis(start, kept, torch.full_like(side, total), torch.zeros_like(side))


class _Resized(nn.Module):
    """(B, 3, H, W) whole numbers of one size -> (B, 3, height, width), as bytes are resized.

    Args:
        stored: (H, W).
        size: (height, width).
    """

    def __init__(self, stored: tuple[int, int], size: tuple[int, int]) -> None:
        super().__init__()
        for name, side, total in zip(("rows", "columns"), stored, size, strict=True):
            length = torch.tensor(side)
            axis = _centered(length, length, total)
            places = torch.arange(side)
            weights = resizing_weights(places, axis, total, bilinear, fixed_bits=False)
            self.register_buffer(f"{name}_numbers", weights.numbers, persistent=False)
            self.register_buffer(f"{name}_unit", weights.unit, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """The resized pixels."""
        rows, columns = (
            Weights(self.get_buffer(f"{name}_numbers"), self.get_buffer(f"{name}_unit"))
            for name in ("rows", "columns")
        )
        return _resize_both(pixels, rows, columns, _TORCH)


class _Enlarged(nn.Module):
    """(B, 3, H, W) of one size -> (B, 3, height, width), center-cropped, bilinear, antialiased.

    Args:
        stored: (H, W).
        size: (height, width).
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, stored: tuple[int, int], size: tuple[int, int]) -> None:
        super().__init__()
        region = center_region(stored, size)
        sides = zip(("rows", "columns"), stored, region[:2], region[2:], size, strict=True)
        for name, side, start, kept, total in sides:
            numbers = (torch.tensor(int(each)) for each in (start, kept, total, 0))
            weights = _fractions(torch.arange(side), Axis(*numbers), total, bilinear)
            self.register_buffer(name, weights.float(), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """The resized pixels."""
        return self.rows @ (pixels @ self.columns.T)


def pixel_input(
    graph: Graph, preprocess: Preprocess, info: DataInfo, size: tuple[int, int] | None
) -> PixelGraph:
    """A graph that takes the pixels of images, with the preprocessing of its task.

    Args:
        graph: of the task.
        preprocess: of the task, without augmentation.
        info: of the data.
        size: (height, width) of the images if it is fixed.

    Raises:
        PacavitError: the preprocessing cannot be part of a graph, or needs a fixed size.
    """
    if isinstance(preprocess, ClassificationPreprocess):
        return PixelGraph(_Cropped(preprocess), graph, info)
    if not isinstance(preprocess, SegmentationPreprocess):
        raise PacavitError(
            "--input uint8 is for classification and segmentation: a detector's results are in "
            "pixels of the resized image, whose size the caller must know; leave it out"
        )
    config = preprocess.config
    if config.slide is not None:
        raise PacavitError(
            "--input uint8 cannot slide windows over an image (task.slide); leave it out, and "
            "let pacavit predict slide them"
        )
    if config.image_size is None:
        return PixelGraph(nn.Identity(), graph, info)
    if size is None:
        raise PacavitError(
            "--input uint8 of a segmentation needs --size HEIGHT WIDTH, the size of your images: "
            f"they are resized to a shorter side of {config.image_size}, and graphs with resized "
            "images of several sizes are not supported"
        )
    return PixelGraph(_Resized(size, config.resized(size)), graph, info)
