"""Sets of images whose targets are objects: boxes with classes, and perhaps masks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from pacavit.data.base import ImageSet, Sample
from pacavit.data.formats.rle import Rle

__all__ = ["MemoryObjects", "ObjectImages", "ObjectLayout", "ObjectStatistics", "Objects"]


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects in an image.

    Attributes:
        boxes: (num, 4) float32, x1 y1 x2 y2 in pixels of the stored image, inside it, each with an
            area above 0.
        labels: (num,) int64, classes.
        crowd: (num,) bool, regions with many objects of a class: never learned from, and
            predictions inside them do not count.
        areas: (num,) float32, pixels of the object as the data set states them; scores by size use
            them.
        size: (height, width) of the stored image.
        image_id: the data set's own number of the image; files with predictions use it.
        masks: one per object, of the image's size; None if the data set has no masks.
    """

    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    areas: Tensor
    size: tuple[int, int]
    image_id: int
    masks: tuple[Rle, ...] | None = None

    @classmethod
    def none(cls, size: tuple[int, int], image_id: int = 0, *, masks: bool = False) -> Objects:
        """No object."""
        return cls(
            torch.zeros(0, 4),
            torch.zeros(0, dtype=torch.int64),
            torch.zeros(0, dtype=torch.bool),
            torch.zeros(0),
            size,
            image_id,
            () if masks else None,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor) -> Objects:
        """Those at positions (n,) int64, or where (num,) bool is True."""
        positions = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows
        chosen = (
            None if self.masks is None else tuple(self.masks[row] for row in positions.tolist())
        )
        return replace(
            self,
            boxes=self.boxes[positions],
            labels=self.labels[positions],
            crowd=self.crowd[positions],
            areas=self.areas[positions],
            masks=chosen,
        )


@dataclass(frozen=True, eq=False)
class ObjectStatistics:
    """Counts over all images of a split.

    Attributes:
        objects: (classes,) int64, objects of each class; those of crowd regions do not count.
        images: (classes,) int64, images that show each class.
        most: largest number of objects in an image.
        crowds: number of crowd regions.
        empty: number of images without objects.
        sides: (objects,) float32, square roots of the areas of all objects in pixels of the stored
            images, in rising order.
    """

    objects: Tensor
    images: Tensor
    most: int
    crowds: int
    empty: int
    sides: Tensor

    @classmethod
    def of(cls, targets: Iterable[Objects], num_classes: int) -> ObjectStatistics:
        """The counts of many images."""
        objects, images = torch.zeros(2, num_classes, dtype=torch.int64)
        most = crowds = empty = 0
        areas = [torch.zeros(0)]
        for target in targets:
            counts = target.labels[~target.crowd].bincount(minlength=num_classes)
            number = int(counts.sum())
            objects += counts
            images += counts > 0
            most, crowds = max(most, number), crowds + len(target) - number
            empty += number == 0
            areas.append(target.areas[~target.crowd])
        sides = torch.cat(areas).sqrt().sort().values
        return cls(objects, images, most, crowds, empty, sides)


class ObjectLayout(NamedTuple):
    """What batches are planned by, of each image.

    Attributes:
        sizes: (num, 2) int64, height and width as stored.
        objects: (num,) int64, number of objects without crowd regions.
    """

    sizes: Tensor
    objects: Tensor


class ObjectImages(ImageSet):
    """One split whose targets are ``Objects``, all of which are known without decoding an image."""

    @cached_property
    def layout(self) -> ObjectLayout:
        """Sizes and numbers of objects; computed once."""
        targets = [self.target(index) for index in range(len(self))]
        return ObjectLayout(
            torch.tensor([target.size for target in targets]).view(-1, 2),
            torch.tensor([int((~target.crowd).sum()) for target in targets], dtype=torch.int64),
        )

    @property
    @abstractmethod
    def statistics(self) -> ObjectStatistics:
        """Counts over all images."""

    @abstractmethod
    def target(self, index: int) -> Objects:
        """The objects in the image at a position."""

    def blank(self, index: int) -> Sample:
        """A small black image without objects; no file is read."""
        size = (64, 64)
        masks = self.target(index).masks is not None
        return Sample(
            torch.zeros(3, *size, dtype=torch.uint8), Objects.none(size, masks=masks), index
        )


@dataclass(frozen=True, eq=False)
class MemoryObjects(ObjectImages):
    """One split with objects, kept in memory.

    Attributes:
        images: (num, 3, H, W) uint8, RGB.
        objects: of each image.
        num_classes: number of classes.
    """

    images: Tensor
    objects: Sequence[Objects]
    num_classes: int

    @cached_property
    def statistics(self) -> ObjectStatistics:
        """Counts over all images; computed once."""
        return ObjectStatistics.of(self.objects, self.num_classes)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """The image at a position with its objects."""
        return Sample(self.images[index], self.objects[index], index)

    def target(self, index: int) -> Objects:
        """The objects in the image at a position."""
        return self.objects[index]

    @property
    def device(self) -> torch.device:
        """The device of the images."""
        return self.images.device

    def to(self, device: torch.device) -> MemoryObjects:
        """The images in the memory of a device; objects stay on the CPU."""
        return self if device == self.device else replace(self, images=self.images.to(device))
