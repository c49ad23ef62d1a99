"""Batches of an image set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pacavit.data.base import Batch, ImageSet
from pacavit.data.files import FileImages, describe_broken
from pacavit.data.image import fit_image
from pacavit.data.randomness import SampleRandom, epoch_order
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
    otherwise the image is left out.

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
        part: (which, of how many): each batch is cut into so many shares, as equal as can be, and
            this loader makes one of them. All make the same number of batches, and none is empty:
            a last batch that is too small for that joins the one before it.

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
        smallest = min(batch_size, len(images))
        if smallest < part[1]:
            raise DataError(
                f"a batch of {smallest} images is not enough for {part[1]} processes; use fewer"
            )
        self.images, self.batch_size, self.transform = images, batch_size, transform
        self.batch_transform = batch_transform
        self.framing, self.num_workers = framing, num_workers
        self.shuffle, self.drop_last, self.seed = shuffle, drop_last, seed
        self.part = part

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(len(self.images), self.batch_size)
        return full + (rest >= self.part[1] and not self.drop_last)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch.

        Args:
            epoch: counted from 0.
            start: batches to leave out at the beginning, at no cost: a run that was interrupted
                after ``start`` batches goes on with the ones it would have seen.

        Raises:
            ReadError: the system failed to read a file; nothing says that it is broken.
            DataError: not one image of the set can be read, or a worker died.
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
        own, parts = self.part
        batches = list(order.split(self.batch_size))
        if len(batches) > len(self) and not self.drop_last:
            batches[-2:] = [torch.cat(batches[-2:])]
        return [batch.tensor_split(parts)[own] for batch in batches[: len(self)]]

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
        device, num_batches = images.device, 0
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
            if batch is not None:
                yield Batch(*(tensor.to(device, non_blocking=True) for tensor in batch))
                num_batches += 1
        if parts and not num_batches:
            raise DataError(f"no usable image in {images.root}: {describe_broken(images.broken)}")


class _Read(NamedTuple):
    """A batch, None if it has no image, and the images that could not be read for it."""

    batch: Batch | None
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
            return _Read(None, broken)
        indices = torch.tensor(used)
        random = SampleRandom(self.seed, self.epoch, indices)
        images = self.transform(torch.stack(framed), random)
        return _Read(Batch(images, self.images.labels[indices], indices), broken)

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
