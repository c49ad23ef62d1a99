"""Why is this road? Scores of the classes of a region, and regions of an image.

All methods of :mod:`pacavit.explain.methods` explain a network (B, 3, height, width) -> (B,
classes). :class:`RegionScores` makes a segmentation network such a one, for a region of its input.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from pacavit.errors import DataError
from pacavit.explain.core.map_scores import MapScores, copies_of
from pacavit.tasks.segmentation import Segmenter
from pacavit.utils.layout import enlarge

__all__ = ["RegionScores", "check_pixel", "connected_region", "input_region"]


class RegionScores(MapScores):
    """(B, 3, height, width) -> the mean logit of each class over a region: (B, classes).

    Regions and classes are independent of each other: the score of a class that no pixel of the
    region has asks why it has not. Gradients with respect to a mean over pixels are the means of
    the pixels' gradients, as in Seg-Grad-CAM (Vinogradova et al., AAAI 2020).

    Args:
        segmenter: backbone and head, shared with the caller.
        regions: (B, height, width) bool, in pixels of the network's input; none is empty. Images
            may come in several copies of the whole batch, as methods that alter images send them.

    Raises:
        DataError: a region is empty.
    """

    regions: Tensor

    def __init__(self, segmenter: Segmenter, regions: Tensor) -> None:
        super().__init__(segmenter.backbone)
        if not regions.flatten(1).any(1).all():
            raise DataError("the region has no pixels; choose one with at least one")
        self.head = segmenter.head
        self.register_buffer("regions", regions, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The mean logits."""
        output = self.head(self.maps_of(images))
        logits = enlarge(output.logits.float(), images.shape[2:])
        copies = copies_of(images, len(self.regions))
        inside = self.regions.flatten(1).to(logits).repeat(copies, 1)
        sums = torch.einsum("bkn,bn->bk", logits.flatten(2), inside)
        return sums / inside.sum(1, keepdim=True)


def connected_region(labels: Tensor, row: int, column: int) -> Tensor:
    """The pixels of one class that are connected with a pixel: (H, W) -> (H, W) bool.

    Neighbors share a side.

    Args:
        labels: (H, W) classes of the pixels.
        row: of the pixel.
        column: of the pixel.

    Raises:
        DataError: the image has no such pixel.
    """
    check_pixel((labels.shape[0], labels.shape[1]), row, column)
    same = (labels == labels[row, column]).cpu().numpy()
    numbers, _ = ndimage.label(same)
    return torch.from_numpy(np.asarray(numbers == numbers[row, column]))


def check_pixel(size: tuple[int, int], row: int, column: int) -> None:
    """Raise DataError unless an image of ``size`` (height, width) has the pixel."""
    height, width = size
    if not (0 <= row < height and 0 <= column < width):
        raise DataError(
            f"no pixel {column},{row} (x,y): the image has {width} x {height} pixels, counted "
            "from 0"
        )


def input_region(region: Tensor, size: tuple[int, int]) -> Tensor:
    """A region of an image, (H, W) bool, in the pixels of the network's input: (height, width).

    The input shows the whole image. A region that is smaller than a pixel of it gets that pixel.
    """
    if tuple(region.shape) == size:
        return region
    cells = region[None, None].float()
    resized = F.interpolate(cells, size=size, mode="nearest-exact")
    if not resized.any():
        resized = F.adaptive_max_pool2d(cells, size)
    return resized[0, 0] > 0
