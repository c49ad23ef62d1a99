"""Sets of images whose targets are masks: the class of every pixel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from pacavit.data.base import IGNORE_INDEX, ImageSet, Sample

__all__ = ["MaskStatistics", "MaskedImages", "MemoryMasks", "count_labels"]


@dataclass(frozen=True, eq=False)
class MaskStatistics:
    """Counts over all masks of a split.

    Attributes:
        pixels: (classes,) int64, pixels of each class.
        images: (classes,) int64, images that show each class.
        shown_in: (classes,) int64, all pixels of the images that show each class.
        unlabeled: number of pixels without a class.
        empty: names of images without a labeled pixel.
    """

    pixels: Tensor
    images: Tensor
    shown_in: Tensor
    unlabeled: int
    empty: tuple[str, ...] = ()

    @classmethod
    def of(cls, counts: Iterable[tuple[str, Tensor]], num_classes: int) -> MaskStatistics:
        """The sums of the counts of many masks.

        Args:
            counts: of each image, its name and the result of ``count_labels``.
            num_classes: number of classes.
        """
        pixels, images, shown_in = torch.zeros(3, num_classes, dtype=torch.int64)
        unlabeled, empty = 0, list[str]()
        for name, count in counts:
            known, shows = count[:num_classes], count[:num_classes] > 0
            pixels += known
            images += shows
            shown_in += count.sum() * shows
            unlabeled += int(count[num_classes])
            if not shows.any():
                empty.append(name)
        return cls(pixels, images, shown_in, unlabeled, tuple(empty))


def count_labels(mask: Tensor, num_classes: int) -> Tensor:
    """(H, W) uint8 -> (classes + 1,) int64: pixels of each class, then those without one."""
    counts = mask.flatten().bincount(minlength=IGNORE_INDEX + 1)
    return torch.cat([counts[:num_classes], counts[IGNORE_INDEX:]])


class MaskedImages(ImageSet):
    """One split whose targets are masks: (H, W) uint8 like the stored image."""

    @property
    @abstractmethod
    def statistics(self) -> MaskStatistics:
        """Counts over all masks."""

    @property
    def pixel_counts(self) -> Tensor:
        """(classes,) int64: the number of pixels of each class."""
        return self.statistics.pixels

    @abstractmethod
    def target(self, index: int) -> Tensor:
        """The mask of the image at a position, (H, W) uint8, without decoding the image."""

    def blank(self, index: int) -> Sample:
        """A small black image without labeled pixels; no file is read."""
        size = (64, 64)
        mask = torch.full(size, IGNORE_INDEX, dtype=torch.uint8)
        return Sample(torch.zeros(3, *size, dtype=torch.uint8), mask, index)


@dataclass(frozen=True, eq=False)
class MemoryMasks(MaskedImages):
    """One split with masks, kept in the memory of a device.

    Attributes:
        images: (num, 3, H, W) uint8, RGB.
        masks: (num, H, W) uint8, on the same device.
        num_classes: number of classes.
    """

    images: Tensor
    masks: Tensor
    num_classes: int

    @cached_property
    def statistics(self) -> MaskStatistics:
        """Counts over all masks; computed once."""
        counts = (
            (self.location(index), count_labels(mask, self.num_classes))
            for index, mask in enumerate(self.masks.cpu())
        )
        return MaskStatistics.of(counts, self.num_classes)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """The image at a position with its mask."""
        return Sample(self.images[index], self.masks[index], index)

    def target(self, index: int) -> Tensor:
        """The mask of the image at a position, (H, W) uint8."""
        return self.masks[index]

    @property
    def device(self) -> torch.device:
        """The device of images and masks."""
        return self.images.device

    def to(self, device: torch.device) -> MemoryMasks:
        """The images and masks in the memory of a device; not copied if they are there already."""
        if device == self.device:
            return self
        return replace(self, images=self.images.to(device), masks=self.masks.to(device))
