"""The part of a resized image that becomes a training input, and the objects in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from pacavit.data import Objects, Placement, Region, Rle, SampleRandom
from pacavit.data.formats.image import resize_image
from pacavit.tasks.detection.config import ObjectAugmentConfig

__all__ = ["Window", "boxes_of", "choose_window", "count_pixels", "visible_objects"]

_DRAWS = 10  # of a crop, until it shows an object
_LEAST_SIDE = 1.0  # pixels of the input; smaller boxes are nothing to learn from


@dataclass(frozen=True)
class Window:
    """A rectangle in a resized image, perhaps mirrored. Images, boxes and masks share it.

    Attributes:
        stored: (height, width) of the image as it is stored.
        resized: (height, width) to which the image is resized first.
        corner: top and left of the window in the resized image.
        size: (height, width) of the window, which lies inside of the resized image.
        horizontal: mirrored left to right.
        vertical: mirrored top to bottom.
    """

    stored: tuple[int, int]
    resized: tuple[int, int]
    corner: tuple[int, int]
    size: tuple[int, int]
    horizontal: bool = False
    vertical: bool = False

    @classmethod
    def whole(cls, stored: tuple[int, int], resized: tuple[int, int]) -> Self:
        """The whole image."""
        return cls(stored, resized, (0, 0), resized)

    def enlarged(self, size: tuple[int, int]) -> Window:
        """The same part of the image with another (height, width)."""
        factors = [new / old for new, old in zip(size, self.size, strict=True)]
        height, width = (
            max(own, round(side * factor))
            for own, side, factor in zip(size, self.resized, factors, strict=True)
        )
        top, left = (
            round(start * factor) for start, factor in zip(self.corner, factors, strict=True)
        )
        corner = (min(top, height - size[0]), min(left, width - size[1]))
        return replace(self, resized=(height, width), corner=corner, size=size)

    def flipped(self, *, horizontal: bool, vertical: bool) -> Window:
        """The same, mirrored."""
        return replace(
            self,
            horizontal=self.horizontal != horizontal,
            vertical=self.vertical != vertical,
        )

    @property
    def placement(self) -> Placement:
        """Where the window lies in the stored image, apart from mirroring."""
        covered = Region(*self.corner, *self.size)
        region = covered.inside(Region(0, 0, *self.stored), self.resized)
        return Placement(self.stored, region, self.size)

    def of_image(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 as stored -> (3, height, width) of the window."""
        (top, left), (height, width) = self.corner, self.size
        image = resize_image(image, self.resized)[:, top : top + height, left : left + width]
        axes = [axis for axis, mirrored in ((1, self.vertical), (2, self.horizontal)) if mirrored]
        return image.flip(axes) if axes else image

    def of_boxes(self, boxes: Tensor) -> Tensor:
        """(num, 4) as stored -> (num, 4) in pixels of the window, not clipped."""
        (top, left), (height, width) = self.corner, self.size
        rows, columns = self.resized[0] / self.stored[0], self.resized[1] / self.stored[1]
        boxes = boxes * torch.tensor([columns, rows, columns, rows])
        x1, y1, x2, y2 = (boxes - torch.tensor([left, top, left, top])).unbind(1)
        if self.horizontal:
            x1, x2 = width - x2, width - x1
        if self.vertical:
            y1, y2 = height - y2, height - y1
        return torch.stack([x1, y1, x2, y2], dim=1)

    def of_masks(self, masks: Sequence[Rle]) -> Tensor:
        """Masks as stored -> (num, height, width) bool of the window, nearest pixels.

        Masks are decoded one at a time, and only their boxes are looked at: images may have
        hundreds.
        """
        rows, columns = (
            _nearest(*axis)
            for axis in zip(
                self.stored,
                self.resized,
                self.corner,
                self.size,
                (self.vertical, self.horizontal),
                strict=True,
            )
        )
        pixels = torch.zeros(len(masks), *self.size, dtype=torch.bool)
        boxes = self.of_boxes(torch.tensor([mask.box for mask in masks]).view(-1, 4))
        # A pixel more on each side, for rounding.
        starts = (boxes[:, :2].floor() - 1).clamp_min(0).long().tolist()
        ends = (boxes[:, 2:].ceil() + 1).clamp_min(0).long().tolist()
        for row, mask, (left, top), (right, bottom) in zip(
            pixels, masks, starts, ends, strict=True
        ):
            part = rows[top:bottom, None], columns[left:right]
            row[top:bottom, left:right] = mask.decode()[part]
        return pixels


def _nearest(stored: int, resized: int, start: int, length: int, mirrored: bool) -> Tensor:
    """The stored pixels that are nearest to the pixels of a window, along an axis."""
    centers = (torch.arange(start, start + length) + 0.5) * (stored / resized)
    pixels = centers.long().clamp_max(stored - 1)
    return pixels.flip(0) if mirrored else pixels


def choose_window(
    window: Window,
    boxes: Tensor,
    crop_size: tuple[int, int],
    augment: ObjectAugmentConfig,
    random: SampleRandom,
) -> Window:
    """A random crop of a whole image that shows at least one of its objects, if it has any.

    Up to ten crops are drawn; after that one around the middle of a random object is taken.

    Args:
        window: the whole image.
        boxes: (num, 4) of its objects, as stored.
        crop_size: height and width of the crop; it is smaller where the image is smaller.
        augment: with the least fraction of an object that has to be visible.
        random: of one sample.
    """
    height, width = (min(pair) for pair in zip(window.resized, crop_size, strict=True))
    spare = torch.tensor([window.resized[0] - height, window.resized[1] - width])
    draws = random.uniform("crop", 2 * _DRAWS).view(_DRAWS, 2)
    corners = (draws * (spare + 1)).long()
    chosen = corners[0]
    if len(boxes):
        boxes = window.of_boxes(boxes)
        starts = corners.flip(1)[:, None].float()  # x before y, like boxes
        ends = starts + torch.tensor([width, height])
        sides = torch.minimum(boxes[:, 2:], ends) - torch.maximum(boxes[:, :2], starts)
        areas, visible = (boxes[:, 2:] - boxes[:, :2]).prod(1), sides.clamp_min(0).prod(2)
        shown = (visible > 0) & (visible >= augment.min_visible * areas)
        good = shown.any(1).nonzero()
        if len(good):
            chosen = corners[int(good[0])]
        else:
            x1, y1, x2, y2 = boxes[int(random.integers("crop around", 0, len(boxes)))].tolist()
            middle = torch.tensor([(y1 + y2 - height) / 2, (x1 + x2 - width) / 2])
            chosen = middle.long().clamp_min(0).minimum(spare)
    top, left = chosen.tolist()
    return replace(window, corner=(top, left), size=(height, width))


def visible_objects(
    objects: Objects, window: Window, min_visible: float, *, masks: bool
) -> dict[str, Tensor]:
    """The objects in a window as a training target, see ``DetectionPreprocess``.

    Objects of which less than a fraction of the area is visible are left out, of masks where there
    are masks, else of boxes; if that would be all, the most visible one stays.

    Args:
        objects: as stored, without crowd regions.
        window: of the image.
        min_visible: the fraction.
        masks: with masks; boxes of objects that the window cuts are then those of the masks.
    """
    height, width = window.size
    whole = window.of_boxes(objects.boxes)
    boxes = whole.clamp_min(0).minimum(torch.tensor([width, height] * 2))
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp_min(0)
    fractions = sides.prod(1) / (whole[:, 2:] - whole[:, :2]).prod(1)
    if not masks:
        kept = _visible_enough(fractions, min_visible) & (sides >= _LEAST_SIDE).all(1)
        return {"boxes": boxes[kept], "labels": objects.labels[kept]}
    assert objects.masks is not None
    inside = (fractions > 0).nonzero()[:, 0]
    pixels = window.of_masks([objects.masks[row] for row in inside.tolist()])
    boxes, cut = boxes[inside], fractions[inside] < 1 - 1e-4
    boxes[cut] = boxes_of(pixels[cut])
    area = (window.resized[0] / window.stored[0]) * (window.resized[1] / window.stored[1])
    stored = torch.tensor([float(objects.masks[row].area) for row in inside.tolist()])
    counts = count_pixels(pixels)
    seen = torch.where(cut, counts / (stored * area).clamp_min(1), counts.clamp_max(1).float())
    kept = _visible_enough(seen, min_visible)
    kept &= (boxes[:, 2:] - boxes[:, :2] >= _LEAST_SIDE).all(1)
    return {"boxes": boxes[kept], "labels": objects.labels[inside[kept]], "masks": pixels[kept]}


def _visible_enough(fractions: Tensor, least: float) -> Tensor:
    """(num,) bool: whether objects are visible enough; the most visible one, if none is."""
    kept = (fractions >= least) & (fractions > 0)
    if len(fractions) and not bool(kept.any()):
        kept[int(fractions.argmax())] = bool(fractions.max() > 0)
    return kept


def count_pixels(masks: Tensor) -> Tensor:
    """(num, height, width) bool -> (num,) int64, the pixels of each."""
    if masks.device.type != "cpu":
        return masks.flatten(1).sum(1)
    # Many times as fast as PyTorch.
    return torch.tensor([int(np.count_nonzero(mask)) for mask in masks.numpy()]).long()


def boxes_of(masks: Tensor) -> Tensor:
    """(num, height, width) bool -> (num, 4) float32, boxes around the pixels; 0 without pixels."""
    edges = []
    for axis in (1, 2):  # over rows, then over columns
        shown = masks.any(axis)
        first = shown.long().argmax(1)
        last = shown.shape[1] - shown.flip(1).long().argmax(1)
        found = shown.any(1)
        edges.append((first * found, last * found))
    (x1, x2), (y1, y2) = edges
    return torch.stack([x1, y1, x2, y2], dim=1).float()
