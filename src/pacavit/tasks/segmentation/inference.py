"""Logits of whole images, or of windows that slide over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

from pacavit.tasks.segmentation.config import SlideConfig
from pacavit.utils.layout import enlarge

__all__ = ["ImageLogits", "slide_over", "window_starts"]


class ImageLogits(NamedTuple):
    """Logits of images.

    Attributes:
        classes: (B, K, H, W) fp32.
        clusters: (B, K, H', W') fp32; None for heads without clusters.
    """

    classes: Tensor
    clusters: Tensor | None

    def image(self, row: int) -> ImageLogits:
        """The logits of one image, as a batch of 1."""
        rows = slice(row, row + 1)
        return ImageLogits(
            self.classes[rows], None if self.clusters is None else self.clusters[rows]
        )


def slide_over(
    network: Callable[[Tensor], ImageLogits], images: Tensor, config: SlideConfig
) -> ImageLogits:
    """Mean logits of all windows that contain a pixel, at the resolution of the images.

    Args:
        network: images (B, 3, height, width) -> logits.
        images: (B, 3, height, width), of any size.
        config: size and stride of the windows; smaller images are one window.
    """
    height, width = images.shape[2:]
    rows, columns = min(config.window[0], height), min(config.window[1], width)
    sums: list[Tensor] = []
    visits = images.new_zeros(height, width)
    for top, left in _windows((height, width), (rows, columns), config.stride):
        part = (slice(top, top + rows), slice(left, left + columns))
        found = network(images[:, :, *part])
        maps = [enlarge(logits, (rows, columns)) for logits in found if logits is not None]
        if not sums:
            sums = [one.new_zeros(*one.shape[:2], height, width) for one in maps]
        for total, one in zip(sums, maps, strict=True):
            total[:, :, *part] += one
        visits[part] += 1
    classes, *clusters = (total / visits for total in sums)
    return ImageLogits(classes, clusters[0] if clusters else None)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along an axis; the last window ends at the edge."""
    last = max(0, length - window)
    return [*range(0, last, stride), last]


def _windows(
    size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    for top in window_starts(size[0], window[0], stride[0]):
        for left in window_starts(size[1], window[1], stride[1]):
            yield top, left
