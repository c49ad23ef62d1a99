"""What a data set is to the rest of the package."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from pacavit.errors import UnknownNameError
from pacavit.utils.registry import Registry

__all__ = [
    "DATASETS",
    "SPLITS",
    "Batch",
    "DataInfo",
    "DataSource",
    "ImageSet",
    "MemoryImages",
    "Split",
    "check_split",
]

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


def check_split(split: str) -> Split:
    """The name of a split, as it is.

    Raises:
        UnknownNameError: there is no such split.
    """
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    return split


class Batch(NamedTuple):
    """Images ready for a network, with their labels.

    Attributes:
        images: (B, 3, height, width) float, normalised, channels-last.
        labels: (B,) int64; where images are mixed, (B, classes) float target probabilities.
        indices: (B,) int64, positions in the split, so that any image can be found again.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor


@dataclass(frozen=True)
class DataInfo:
    """Facts of a data set that a run records and a model needs.

    Attributes:
        name: registered name.
        copy: which copy of the data this is, for example "CIFAR-10 (JPEG copy)"; stands beside
            every reported number.
        class_names: one per class, in label order.
        image_size: (height, width) of the stored images, in pixels.
        mean: what images are normalised with, per RGB channel, of pixel values scaled to 0..1: of
            the training images, or of ImageNet for sets that are not known beforehand.
        std: likewise.
    """

    name: str
    copy: str
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class ImageSet(ABC):
    """One split of a data set, wherever its images are kept: in memory, or in files.

    Attributes:
        labels: (num,) int64, of all images; known without decoding any.
        broken: why images could not be read, by path: those left out when the set was loaded, and
            those that a Loader has met since.
    """

    labels: Tensor
    broken: Mapping[str, str] = MappingProxyType({})

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where labels and batches lie, and the positions that ``batch`` is asked for."""

    @abstractmethod
    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) positions -> (B, 3, height, width) uint8 RGB images and (B,) int64 labels.

        A batch has one size: a set whose stored images differ in size resizes them.
        """

    def image(self, index: int) -> Tensor:
        """The image at a position as it is stored, (3, H, W) uint8; DataError if it is broken."""
        images, _ = self.batch(torch.tensor([index], device=self.device))
        return images[0]

    @abstractmethod
    def to(self, device: torch.device) -> ImageSet:
        """The same images, with labels and batches on another device."""


@dataclass(frozen=True, eq=False)
class MemoryImages(ImageSet):
    """One split, decoded and kept in the memory of a device.

    Attributes:
        images: (num, 3, height, width) uint8, RGB.
        labels: (num,) int64, on the same device.
        broken: why images that belong here could not be read, by path; they are not counted.
    """

    images: Tensor
    labels: Tensor
    broken: Mapping[str, str] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Of the images."""
        return self.images.device

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) positions -> (B, 3, height, width) uint8 images and (B,) int64 labels, copied."""
        return self.images[indices], self.labels[indices]

    def to(self, device: torch.device) -> MemoryImages:
        """The images in the memory of a device; not copied if they are there."""
        return MemoryImages(self.images.to(device), self.labels.to(device), self.broken)


class DataSource(ABC):
    """A data set: the third extension point. One decorated class in one file a source.

    Args:
        root: folder with the data, or None for the source's own default.
        val_size: images held out of the official training images for validation, drawn
            stratified and always the same ones; None takes the source's default.
    """

    default_val_size: ClassVar[int]

    def __init__(self, root: Path | None = None, *, val_size: int | None = None) -> None:
        self.root = root
        self.val_size = self.default_val_size if val_size is None else val_size

    @property
    @abstractmethod
    def info(self) -> DataInfo:
        """Facts of the data; cheap, loads no images where that can be avoided."""

    @property
    def expected_info(self) -> DataInfo:
        """``info`` as far as it can be told before anything is fetched; a copy may differ from it.

        Recipes are checked against it. Sources that download override this.
        """
        return self.info

    @property
    def note(self) -> str | None:
        """A line to log before the data are used, such as skipped files, or None."""
        return None

    @abstractmethod
    def load(self, split: Split) -> ImageSet:
        """One split; "train" and "val" are disjoint parts of the official training set."""

    def instances(self, split: Split, indices: Tensor) -> Tensor | None:
        """Which object each pixel shows: (B,) positions -> (B, height, width) uint8.

        0 is the ground, 1 the object that the label names. None where a source knows no objects.
        """
        return None


DATASETS: Registry[DataSource] = Registry("dataset")
