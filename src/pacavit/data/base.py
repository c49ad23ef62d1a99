"""The interface of data sets: samples, batches, image sets and data sources."""

from __future__ import annotations

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AliasChoices, Field
from torch import Tensor

from pacavit.data.placement import Placement
from pacavit.errors import DataError, UnknownNameError
from pacavit.utils.registry import Registry

__all__ = [
    "DATASETS",
    "IGNORE_INDEX",
    "SPLITS",
    "Batch",
    "DataInfo",
    "DataSource",
    "ImageSet",
    "LabeledImages",
    "MaskInfo",
    "MemoryImages",
    "Normalization",
    "ObjectInfo",
    "Sample",
    "Split",
    "TargetKind",
    "check_split",
]

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Channels: TypeAlias = tuple[float, float, float]
Color: TypeAlias = tuple[int, int, int]
IGNORE_INDEX = 255
"""Label of pixels that belong to no class: they are in no loss and in no score."""
Normalization: TypeAlias = tuple[Channels, Channels]
"""Mean and standard deviation per RGB channel."""


def check_split(split: str) -> Split:
    """Return the name of a split unchanged, if there is such a split.

    Raises:
        UnknownNameError: there is no such split.
    """
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    return split


@dataclass(frozen=True, eq=False)
class Sample:
    """One image as it is stored, with its target.

    Attributes:
        image: (3, H, W) uint8 RGB.
        target: what the task learns from it, for example an int label.
        index: position in the split.
    """

    image: Tensor
    target: Any
    index: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Images ready for a network, with their targets.

    Attributes:
        images: (B, 3, height, width) float, normalized, channels-last.
        targets: a tensor of B rows, a sequence of B items (tensors, or mappings of tensors), or
            None for images without targets. Classification: (B,) int64 labels, or (B, classes)
            float target probabilities where images are mixed.
        indices: (B,) int64, positions in the split.
        pixel_mask: (B, height, width) bool, False at padding; None if there is no padding.
        placements: where each image lies in its input, B items; empty if that is not recorded.
    """

    images: Tensor
    targets: Any
    indices: Tensor
    pixel_mask: Tensor | None = None
    placements: Sequence[Placement] = ()

    @classmethod
    def unlabeled(cls, images: Tensor, placements: Sequence[Placement] = ()) -> Batch:
        """Images (B, 3, height, width) without targets, numbered from 0."""
        indices = torch.arange(len(images), device=images.device)
        return cls(images, None, indices, placements=placements)

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> Batch:
        """The batch with all tensors on a device; tensors that are there already are not copied."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch in pinned memory, from which a GPU can copy while it computes."""
        return self._map(lambda tensor: tensor.pin_memory())

    def chunk(self, num_chunks: int) -> list[Batch]:
        """The batch in contiguous chunks whose sizes differ by at most 1, larger ones first."""
        small, num_large = divmod(len(self), num_chunks)
        sizes = [small + (number < num_large) for number in range(num_chunks)]
        ends = list(itertools.accumulate(sizes))
        return [self[end - size : end] for size, end in zip(sizes, ends, strict=True)]

    def __getitem__(self, rows: slice) -> Batch:
        return Batch(
            self.images[rows],
            None if self.targets is None else self.targets[rows],
            self.indices[rows],
            None if self.pixel_mask is None else self.pixel_mask[rows],
            self.placements[rows],
        )

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            function(self.images),
            _map_tensors(function, self.targets),
            function(self.indices),
            None if self.pixel_mask is None else function(self.pixel_mask),
            self.placements,
        )


def _map_tensors(function: Callable[[Tensor], Tensor], targets: Any) -> Any:
    """Apply a function to every tensor of nested sequences and mappings."""
    if isinstance(targets, Tensor):
        return function(targets)
    if isinstance(targets, Mapping):
        return {name: _map_tensors(function, value) for name, value in targets.items()}
    if isinstance(targets, list | tuple):
        return [_map_tensors(function, item) for item in targets]
    return targets


@dataclass(frozen=True)
class MaskInfo:
    """How a data set writes down the class of each pixel.

    Attributes:
        values: the value of each class in the data set's own label images, in label order, each
            0..65535.
        colors: RGB color of each class, each 0..255; overlays and legends use them.
    """

    values: tuple[int, ...]
    colors: tuple[Color, ...]


@dataclass(frozen=True)
class ObjectInfo:
    """How a data set writes down the classes of its objects.

    Attributes:
        category_ids: the data set's own number of each class, in label order; they may begin at any
            number and have gaps. Files with predictions use them.
        colors: RGB color of each class, each 0..255; overlays and legends use them.
    """

    category_ids: tuple[int, ...]
    colors: tuple[Color, ...]


@dataclass(frozen=True)
class DataInfo:
    """Facts about a data set that a run records and a model needs.

    Attributes:
        name: registered name.
        version: which version of the data this is, for example "CIFAR-10 (JPEG copy)"; shown with
            every reported number.
        class_names: one per class, in label order.
        image_size: (height, width) of the stored images, in pixels.
        mean: by which images are normalized, per RGB channel, of pixel values scaled to 0..1: that
            of the training images; ImageNet's for images of the user; that of the weights which
            the training started from, if they are of another library.
        std: standard deviation per RGB channel, likewise.
        masks: values and colors of the classes; None unless the targets are masks.
        objects: numbers and colors of the classes; None unless the targets are boxes or instances.
    """

    name: str
    # Weights of earlier releases call it "copy".
    version: Annotated[str, Field(validation_alias=AliasChoices("version", "copy"))]
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    mean: Channels
    std: Channels
    masks: MaskInfo | None = None
    objects: ObjectInfo | None = None

    def normalized_by(self, normalization: Normalization | None) -> DataInfo:
        """The same facts with another mean and standard deviation; None: unchanged."""
        if normalization is None:
            return self
        mean, std = normalization
        return replace(self, mean=mean, std=std)

    def stored_as(self, image_size: tuple[int, int]) -> DataInfo:
        """The same facts for images that are stored with another (height, width)."""
        return replace(self, image_size=image_size)


class ImageSet(ABC):
    """One split of a data set, with images in memory or in files.

    Attributes:
        in_files: images are decoded when they are accessed, so a Loader reads them in worker
            processes.
        broken: error messages by path, of images that were left out when the set was loaded, and of
            those that a Loader has failed to read since.
        root: folder that image files lie in; None for images without files of their own.
    """

    in_files: ClassVar[bool] = False
    broken: Mapping[str, str] = MappingProxyType({})
    root: Path | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """The image at a position, as it is stored; raises DataError if it is broken."""

    @abstractmethod
    def target(self, index: int) -> Any:
        """The target of the image at a position, without decoding the image."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of targets and batches."""

    @abstractmethod
    def to(self, device: torch.device) -> ImageSet:
        """The same images, with targets and batches on another device."""

    def image(self, index: int) -> Tensor:
        """The image at a position, (3, H, W) uint8, for those who need no target."""
        return self[index].image

    def blank(self, index: int) -> Sample:
        """A black image with the target of the image at a position, without decoding that image."""
        target = self.target(index)
        size = target.shape if isinstance(target, Tensor) and target.ndim == 2 else (64, 64)
        return Sample(torch.zeros(3, *size, dtype=torch.uint8), target, index)

    def file(self, index: int) -> Path | None:
        """The path of the image at a position, relative to ``root``; None if it has no own file."""
        return None

    def location(self, index: int) -> str:
        """The name of the image at a position in messages: its path, if it has one."""
        file = self.file(index)
        return f"image {index}" if file is None or self.root is None else str(self.root / file)

    def add_broken(self, broken: Mapping[str, str]) -> None:
        """Record images that could not be read, by path; sets in files implement it."""
        raise NotImplementedError(f"{type(self).__name__} has no images in files")


class LabeledImages(ImageSet):
    """Images whose targets are the rows of one tensor; they can be read in whole batches.

    Attributes:
        labels: of all images, known without decoding any: (num,) int64, one class per image; or
            (num, classes) uint8, 1 for each class that the image shows.
    """

    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """The image at a position as it is stored; raises DataError if it is broken."""
        images, labels = self.batch(torch.tensor([index], device=self.device))
        return Sample(images[0], labels[0], index)

    def target(self, index: int) -> Tensor:
        """The label of the image at a position: () int64 or (classes,) uint8."""
        return self.labels[index]

    @abstractmethod
    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) positions -> (B, 3, height, width) uint8 RGB images and the B rows of ``labels``.

        The images of a batch have one size: a set whose stored images differ in size resizes them.
        """


@dataclass(frozen=True, eq=False)
class MemoryImages(LabeledImages):
    """One split, decoded and kept in the memory of a device.

    Attributes:
        images: (num, 3, height, width) uint8, RGB.
        labels: (num,) int64 or (num, classes) uint8, on the same device.
        broken: error messages by path, of images that could not be read and are not in the set.
        root: folder that ``files`` are relative to.
        files: (num,) bytes, the paths that the images were read from; None if they have none.
    """

    images: Tensor
    labels: Tensor
    broken: Mapping[str, str] = field(default_factory=dict)
    root: Path | None = None
    files: NDArray[np.bytes_] | None = None

    @property
    def device(self) -> torch.device:
        """The device of the images."""
        return self.images.device

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) positions -> (B, 3, height, width) uint8 images and B rows of labels, copied."""
        return self.images[indices], self.labels[indices]

    def to(self, device: torch.device) -> MemoryImages:
        """The images in the memory of a device; not copied if they are there already."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def file(self, index: int) -> Path | None:
        """The path that the image at a position was read from, relative to ``root``."""
        return None if self.files is None else Path(os.fsdecode(self.files[index]))


TargetKind = Literal["label", "labels", "mask", "boxes", "instances"]
"""Kind of an image's target.

"label": one class, int64. "labels": any number of classes, a row of 0 and 1. "mask": one class per
pixel, (H, W) uint8 like the stored image, ``IGNORE_INDEX`` for none. "boxes": any number of
objects with a class and a box, as ``Objects``; "instances": the same, each with a mask.
"""


class DataSource(ABC):
    """A data set: the third extension point. One decorated class in its own file.

    Args:
        root: folder with the data, or None for the source's own default.
        val_size: number of original training images held out for validation, stratified and always
            the same ones; None takes the source's default.

    Attributes:
        targets: the kinds of targets that its images can have. The constructor of a source with
            several kinds takes the wanted one as the keyword argument ``target``.
            A constructor may also take ``evaluated``, the only split that will be loaded, to
            evaluate a trained model; None is for training. Sizes of splits were chosen for the
            training data, so a source should use them only where that split needs them.
        refuses_duplicates: exact copies of images in two splits are an error, unless a recipe says
            otherwise: right for the user's own images, not for published data sets, whose splits
            are fixed.
    """

    refuses_duplicates: ClassVar[bool] = False
    default_val_size: ClassVar[int]
    targets: ClassVar[tuple[TargetKind, ...]] = ("label",)

    def __init__(self, root: Path | None = None, *, val_size: int | None = None) -> None:
        self.root = root
        self.val_size = self.default_val_size if val_size is None else val_size

    @property
    @abstractmethod
    def info(self) -> DataInfo:
        """Facts about the data; loads no images if that can be avoided."""

    @property
    def expected_info(self) -> DataInfo:
        """The ``info`` expected before anything is downloaded; the user's copy may differ from it.

        Recipes are checked against it. Sources that download override this property.
        """
        return self.info

    @property
    def note(self) -> str | None:
        """A line to log before the data are used, such as on skipped files, or None."""
        return None

    @abstractmethod
    def load(self, split: Split) -> ImageSet:
        """One split; "train" and "val" are disjoint subsets of the original training set."""

    def files(self, split: Split) -> ImageSet | None:
        """The images of a split as files, without reading any; None if they are not in files.

        Training counts and compares the images of splits that it does not load.
        """
        return None

    def load_all(self) -> ImageSet:
        """The images of all splits together.

        Raises:
            DataError: the splits of this data set are its own; only sources that list the files of
                a user can ignore them.
        """
        raise DataError(
            f"data set {self.info.name!r} has splits of its own and is measured by split: test, "
            "val or train; all images at once are for a folder of your own images"
        )

    def instances(self, split: Split, indices: Tensor) -> Tensor | None:
        """Masks of objects: (B,) positions -> (B, height, width) uint8.

        0 is the background, 1 the object that the label names. None if the source has no masks.
        """
        return None


DATASETS: Registry[DataSource] = Registry("dataset")
