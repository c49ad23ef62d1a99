"""Batches of an image set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pacavit.data.base import Batch, ImageSet
from pacavit.data.formats.files import FileImages, describe_broken
from pacavit.data.formats.image import fit_image
from pacavit.data.random import SampleRandom, epoch_order
from pacavit.data.workers import map_in_workers
from pacavit.errors import DataError, ReadError

__all__ = ["BatchTransform", "Framing", "Loader", "Transform"]

Transform = Callable[[Tensor, SampleRandom], Tensor]
"""(B, 3, H, W) uint8 images, their random draws -> (B, 3, height, width) float, channels-last."""

BatchTransform = Callable[[Batch, SampleRandom], Batch]
"""A batch ready for a network, its random draws -> the same with its images mixed."""
Framing = Callable[[Tensor, SampleRandom], Tensor]
"""(3, H, W) uint8 image of any size, its random draws -> (3, height, width) uint8 of one size."""


class Loader:
    """Batches of an image set, epoch by epoch; what an epoch holds depends on its number alone.

    A loader is cheap: to change the transform between epochs (another resolution), make another
    loader over the same images. Visiting order and draws do not change with it. Images in memory
    may lie on any device; their batches are made there. Images in files are read and transformed
    on the CPU, by workers if there are any, and move to the device of the set as batches.

    A broken file is noted in ``images.broken`` and never stops an epoch. Its place
    goes to the next readable image of the set where all batches have to be full (``drop_last``);
    otherwise the image is left out, and of several parts one may then be empty.

    Args:
        images: one split.
        batch_size: images in a batch; the last one of an epoch may be smaller.
        transform: turns the stored images of a batch into the network's input.
        shuffle: visit the images in a new order every epoch, rather than as stored.
        drop_last: leave out a last batch that is not full.
        seed: of the order and of all draws.
        framing: cuts each image, of any size, to the size of the batch before ``transform``. None
            leaves images in memory as they are, and files to the size of their set.
        num_workers: processes that read and transform files, ahead of the training; 0 does it in
            this one. Batches are the same for any number. Images in memory need none.
        batch_transform: changes images and labels of a batch together, in the end, in this process.
            May mix the first image with the second, the third with the fourth and so on.
        part: (which, of how many): each batch is cut into so many shares, as equal as can be (with
            ``batch_transform``: without cutting its pairs), and this loader makes one of them. All
            make the same number of batches, and none is empty: a last batch that is too small for
            that joins the one before it.

    Raises:
        DataError: there would be no batch at all, or batches too small to cut.
    """

    def __init__(
        self,
        images: ImageSet,
        batch_size: int,
        transform: Transform,
        *,
        shuffle: bool,
        drop_last: bool,
        seed: int,
        framing: Framing | None = None,
        num_workers: int = 0,
        batch_transform: BatchTransform | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if len(images) == 0:
            raise DataError("there are no images to make batches of")
        if drop_last and len(images) < batch_size:
            raise DataError(
                f"{len(images)} images do not fill one batch of {batch_size}; lower the batch size"
            )
        unit = 1 if batch_transform is None else 2
        smallest = min(batch_size, len(images))
        if math.ceil(smallest / unit) < part[1]:
            pairs = " to be mixed in pairs" if unit == 2 else ""
            raise DataError(
                f"a batch of {smallest} images{pairs} is not enough for {part[1]} processes; "
                "use fewer"
            )
        self.images, self.batch_size, self.transform = images, batch_size, transform
        self.batch_transform = batch_transform
        self.framing, self.num_workers = framing, num_workers
        self.shuffle, self.drop_last, self.seed = shuffle, drop_last, seed
        self.part, self.unit = part, unit

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(len(self.images), self.batch_size)
        return full + (math.ceil(rest / self.unit) >= self.part[1] and not self.drop_last)

    @property
    def share_sizes(self) -> tuple[int, int]:
        """Images in the largest and in the smallest share of a full batch, whoever's they are."""
        batch, parts = torch.arange(self.batch_size), self.part[1]
        sizes = [len(_share(batch, (own, parts), self.unit)) for own in range(parts)]
        return max(sizes), min(sizes)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch.

        Args:
            epoch: counted from 0.
            start: batches to leave out at the beginning, at no cost: a run that was interrupted
                after ``start`` batches goes on with the ones it would have seen.

        Raises:
            ReadError: the system failed to read a file; nothing says that it is broken.
            DataError: not one image of the set can be read (of several parts without
                ``drop_last`` this is for the caller to see), or a worker died.
        """
        num = len(self.images)
        order = epoch_order(num, self.seed, epoch) if self.shuffle else torch.arange(num)
        parts = self._shares(order)[start:]
        if isinstance(self.images, FileImages):
            batches = self._from_files(self.images, parts, epoch)
        else:
            batches = self._from_memory(parts, epoch)
        for batch in batches:
            if self.batch_transform is not None:
                batch = self.batch_transform(batch, SampleRandom(self.seed, epoch, batch.indices))
            yield batch

    def _shares(self, order: Tensor) -> list[Tensor]:
        """(num,) positions in the order of an epoch -> this loader's part of each batch."""
        batches = list(order.split(self.batch_size))
        if len(batches) > len(self) and not self.drop_last:
            batches[-2:] = [torch.cat(batches[-2:])]
        return [_share(batch, self.part, self.unit) for batch in batches[: len(self)]]

    def _from_memory(self, parts: list[Tensor], epoch: int) -> Iterator[Batch]:
        for part in parts:
            indices = part.to(self.images.device)
            random = SampleRandom(self.seed, epoch, indices)
            images, labels = self.images.batch(indices)
            if self.framing is not None:
                framed = [
                    self.framing(image, random.sample(number))
                    for number, image in enumerate(images)
                ]
                images = torch.stack(framed)
            yield Batch(self.transform(images, random), labels, indices)

    def _from_files(self, images: FileImages, parts: list[Tensor], epoch: int) -> Iterator[Batch]:
        device, num_images = images.device, 0
        # Other parts of the same batch may have images.
        skip_empty = self.drop_last or self.part[1] == 1
        reader = _Reader(
            images.to(torch.device("cpu")),
            self.framing or _Fitting(images.size),
            self.transform,
            seed=self.seed,
            epoch=epoch,
            replace=self.drop_last,
        )
        for batch, broken in map_in_workers(
            reader, parts, num_workers=self.num_workers, pin_memory=device.type == "cuda"
        ):
            images.broken.update(broken)
            num_images += len(batch.labels)
            if len(batch.labels) or not skip_empty:
                yield Batch(*(tensor.to(device, non_blocking=True) for tensor in batch))
        if parts and skip_empty and not num_images:
            raise DataError(f"no usable image in {images.root}: {describe_broken(images.broken)}")


def _share(batch: Tensor, part: tuple[int, int], unit: int) -> Tensor:
    """The part (which, of how many) of a batch that is cut only after multiples of ``unit``."""
    own, parts = part
    starts = torch.arange(0, len(batch), unit).tensor_split(parts)[own]
    return batch[starts[0] : starts[-1] + unit]


class _Read(NamedTuple):
    """A batch, maybe without any image, and the images that could not be read for it."""

    batch: Batch
    broken: dict[str, str]


class _Reader:
    """Makes batches of files: (B,) positions -> a batch on the CPU; runs inside the workers."""

    def __init__(
        self,
        images: FileImages,
        framing: Framing,
        transform: Transform,
        *,
        seed: int,
        epoch: int,
        replace: bool,
    ) -> None:
        self.images, self.framing, self.transform = images, framing, transform
        self.seed, self.epoch, self.replace = seed, epoch, replace

    def __call__(self, positions: Tensor) -> _Read:
        broken: dict[str, str] = {}
        framed, used = [], []
        for position in positions.tolist():
            found = self._first_readable(position, broken)
            if found is not None:
                used.append(found[0])
                framed.append(found[1])
        if not used:
            return _Read(self._empty(positions[:1]), broken)
        indices = torch.tensor(used)
        random = SampleRandom(self.seed, self.epoch, indices)
        images = self.transform(torch.stack(framed), random)
        return _Read(Batch(images, self.images.labels[indices], indices), broken)

    def _empty(self, position: Tensor) -> Batch:
        """A batch of no images of the usual size; (1,) any position."""
        random = SampleRandom(self.seed, self.epoch, position)
        blank = self.framing(torch.zeros(3, *self.images.size, dtype=torch.uint8), random)
        images = self.transform(blank[None], random)
        return Batch(images[:0], self.images.labels[:0], position[:0])

    def _first_readable(self, position: int, broken: dict[str, str]) -> tuple[int, Tensor] | None:
        """A position and its framed image: the given one, or the next if it is replaced."""
        num = len(self.images)
        for step in range(num if self.replace else 1):
            index = (position + step) % num
            path = str(self.images.path(index))
            # A file found broken is not tried again by this process in this epoch.
            if path in self.images.broken:
                broken[path] = self.images.broken[path]
                continue
            try:
                image = self.images.image(index)
            except ReadError:
                raise
            except DataError as error:
                self.images.broken[path] = broken[path] = str(error)
                continue
            random = SampleRandom(self.seed, self.epoch, torch.tensor([index]))
            return index, self.framing(image, random)
        return None


class _Fitting:
    """The framing that draws nothing: the centre of the image, resized."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, image: Tensor, random: SampleRandom) -> Tensor:
        return fit_image(image, self.size)
