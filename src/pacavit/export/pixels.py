"""Cropping, resizing and normalization as part of a graph, for images of any size.

Resizing is two products with matrices that are built from the size of the image inside the graph,
first along the width, then along the height, with the weights and the roundings of what the
preprocessing of images uses: torch's antialiased resizing of bytes (weights of 15 bits), and
Pillow's (22 bits). Sizes enter as whole numbers, so that no position is rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pacavit.data import DataInfo, Preprocess, normalize
from pacavit.errors import PacavitError
from pacavit.tasks.classification import ClassificationPreprocess
from pacavit.tasks.classification.crops import CenterCrop
from pacavit.tasks.graph import Graph
from pacavit.tasks.segmentation import SegmentationPreprocess

__all__ = ["Axis", "PixelGraph", "bicubic", "bilinear", "pixel_input", "resizing_matrix"]

_MAX_BITS = 22  # of weights, in torch and in Pillow
_BITS_16 = 2**15 - 0.5  # the largest weight of torch, in 16 bits with sign


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


def resizing_matrix(
    places: Tensor,
    axis: Axis,
    count: int,
    kernel: Callable[[Tensor], Tensor],
    *,
    fixed_bits: bool,
) -> Tensor:
    """Weights (count, L) by which ``count`` resized pixels are sums of L pixels.

    Args:
        places: (L,) int64, 0 to L - 1.
        axis: of the image.
        count: number of pixels that are used.
        kernel: weights by distance.
        fixed_bits: weights of 22 bits in float64, as Pillow has them, whose sums float32 would
            round; if False, of as many bits as 16 can hold, in float32, as torch has them.
    """
    source = places[None] - axis.start
    target = torch.arange(count, device=places.device)[:, None] + axis.first
    # Twice the distance between the centers of the pixels, times the number of resized pixels.
    distance = ((2 * source + 1) * axis.total - (2 * target + 1) * axis.kept).abs()
    reach = 2 * torch.maximum(axis.kept, axis.total)
    dtype = torch.float64 if fixed_bits else torch.float32
    weights = kernel(distance.to(dtype) / reach.to(dtype))
    inside = (source >= 0) & (source < axis.kept)
    weights = torch.where(inside, weights, 0.0)
    weights = weights / weights.sum(1, keepdim=True)
    if fixed_bits:
        scale = torch.tensor(2.0**_MAX_BITS, dtype=dtype)
    else:
        powers = 2.0 ** torch.arange(1, _MAX_BITS + 1)
        fits = (weights.max() * powers < _BITS_16).to(weights.dtype)
        scale = torch.exp2(fits.sum())
    return (weights * scale + 0.5).floor() / scale


def _to_bytes(values: Tensor) -> Tensor:
    """Whole numbers in 0..255, as float."""
    return (values + 0.5).floor().clamp(0, 255)


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
        self.final = _last_resize(self.size, preprocess.transform.size)

    def forward(self, pixels: Tensor) -> Tensor:
        """Resize twice: to the size of stored images, then to that of the network's input."""
        places = [torch.arange(side, device=pixels.device) for side in pixels.shape[2:]]
        axes = self._axes(places[0][-1] + 1, places[1][-1] + 1)
        kernel = bicubic if self.cubic else bilinear
        rows, columns = (
            resizing_matrix(each, axis, count, kernel, fixed_bits=self.crop is not None)
            for each, axis, count in zip(places, axes, self.size, strict=True)
        )
        resized = _to_bytes(rows @ _to_bytes(pixels.to(rows.dtype) @ columns.T)).float()
        return resized if self.final is None else self.final(resized)

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


class _Fixed(nn.Module):
    """(B, 3, H, W) of one size -> (B, 3, height, width), bilinearly with antialiasing.

    Args:
        stored: (H, W).
        size: (height, width).
        crop: to the aspect ratio of ``size`` around the center first.
        round_bytes: round to whole numbers, as images in bytes are.
    """

    rows: Tensor
    columns: Tensor

    def __init__(
        self, stored: tuple[int, int], size: tuple[int, int], *, crop: bool, round_bytes: bool
    ) -> None:
        super().__init__()
        self.round_bytes = round_bytes
        height, width = (torch.tensor(side) for side in stored)
        kept = [height, width]
        if crop and stored[0] * size[1] != stored[1] * size[0]:
            wide = stored[0] * size[1] < stored[1] * size[0]
            kept = [
                height if wide else _in_proportion(width, size),
                _in_proportion(height, size[::-1]) if wide else width,
            ]
        for name, side, part, total in zip(
            ("rows", "columns"), (height, width), kept, size, strict=True
        ):
            axis = _centered(side, part, total)
            matrix = _exact_matrix(int(side), axis, total, round_bytes=round_bytes)
            self.register_buffer(name, matrix, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """The resized pixels."""
        if self.round_bytes:
            return _to_bytes(self.rows @ _to_bytes(pixels @ self.columns.T))
        return self.rows @ (pixels @ self.columns.T)


def _exact_matrix(side: int, axis: Axis, total: int, *, round_bytes: bool) -> Tensor:
    """The matrix of an axis whose length is known; without bits where nothing is rounded."""
    matrix = resizing_matrix(torch.arange(side), axis, total, bilinear, fixed_bits=False)
    if round_bytes:
        return matrix
    source = torch.arange(side)[None] - axis.start
    target = torch.arange(total)[:, None]
    distance = ((2 * source + 1) * total - (2 * target + 1) * axis.kept).abs()
    weights = bilinear(distance.double() / (2 * max(int(axis.kept), total)))
    weights = weights * ((source >= 0) & (source < axis.kept))
    return (weights / weights.sum(1, keepdim=True)).float()


def _last_resize(stored: tuple[int, int], size: tuple[int, int]) -> _Fixed | None:
    """From stored images to the network's input; None if they have its size."""
    return None if stored == size else _Fixed(stored, size, crop=True, round_bytes=False)


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
    resize = _Fixed(size, config.resized(size), crop=False, round_bytes=True)
    return PixelGraph(resize, graph, info)
