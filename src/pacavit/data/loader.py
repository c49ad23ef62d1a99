"""Batches of an image set."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pacavit.data.base import Batch, ImageSet, LabeledImages, Sample
from pacavit.data.formats.files import describe_broken
from pacavit.data.placement import Placement
from pacavit.data.preprocess import Preprocess
from pacavit.data.random import SampleRandom, epoch_order
from pacavit.data.workers import map_in_workers
from pacavit.errors import DataError, ReadError

__all__ = ["Loader"]


class Loader:
    """Batches of an image set; the content of an epoch depends on the seed and its number alone.

    A loader is cheap to create: to change the preprocessing between epochs (another resolution),
    create another loader for the same images. Order and random numbers stay the same. Images in
    memory are preprocessed on the device where they are. Images in files are read and preprocessed
    on the CPU, in worker processes if there are any, and batches are moved to the device of the
    set.

    Batches are mixed from all images, or made of groups of them, as the preprocessing wants
    (``Preprocess.groups``).

    A broken file is recorded in ``images.broken`` and never stops an epoch. With ``drop_last`` the
    next readable image of the set replaces it, so that all batches are full; otherwise the image is
    left out, and one of several shards may then be empty.

    Args:
        images: one split.
        batch_size: images in a batch; the last one of an epoch may be smaller.
        preprocess: turns stored images into the network's input.
        shuffle: visit the images in a new order every epoch, rather than as stored.
        drop_last: leave out a last batch that is not full.
        seed: of the order and of all random numbers.
        num_workers: processes that read and preprocess files in advance; 0 does it in this process.
            Batches are the same for any number. Images in memory need none.
        shard: (index, number of shards): each batch is split into shards as equal as possible (at
            multiples of ``preprocess.unit``), and this loader makes one of them. All loaders make
            the same number of batches, and no shard is empty: a last batch that is too small is
            merged with the one before it.

    Raises:
        DataError: there would be no batch at all, or batches too small to cut.
    """

    def __init__(
        self,
        images: ImageSet,
        batch_size: int,
        preprocess: Preprocess,
        *,
        shuffle: bool,
        drop_last: bool,
        seed: int,
        num_workers: int = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.groups = preprocess.groups(images)
        self.num_images = len(images) if self.groups is None else int((self.groups >= 0).sum())
        if self.num_images == 0:
            raise DataError("there are no images to make batches of")
        if drop_last and self.num_images < batch_size:
            raise DataError(
                f"{self.num_images} images do not fill one batch of {batch_size}; lower the batch "
                "size"
            )
        unit = preprocess.unit
        smallest = min(batch_size, self.num_images)
        if math.ceil(smallest / unit) < shard[1]:
            pairs = " to be mixed in pairs" if unit == 2 else ""
            raise DataError(
                f"a batch of {smallest} images{pairs} is not enough for {shard[1]} processes; "
                "use fewer"
            )
        self.images, self.batch_size, self.preprocess = images, batch_size, preprocess
        self.num_workers = num_workers
        self.shuffle, self.drop_last, self.seed = shuffle, drop_last, seed
        self.shard, self.unit = shard, unit

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(self.num_images, self.batch_size)
        return full + (math.ceil(rest / self.unit) >= self.shard[1] and not self.drop_last)

    @property
    def shard_sizes(self) -> tuple[int, int]:
        """Images in the largest and in the smallest shard of a full batch, over all processes."""
        batch, count = torch.arange(self.batch_size), self.shard[1]
        sizes = [len(_shard(batch, (own, count), self.unit)) for own in range(count)]
        return max(sizes), min(sizes)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch.

        Args:
            epoch: counted from 0.
            start: number of batches to skip without reading them, so that a run that was
                interrupted after ``start`` batches resumes with the next one.

        Raises:
            ReadError: the system failed to read a file, which need not be broken.
            DataError: no image of the set can be read, or a worker died. With several shards and
                without ``drop_last``, the caller has to detect the first case.
        """
        num = len(self.images)
        order = epoch_order(num, self.seed, epoch) if self.shuffle else torch.arange(num)
        if self.groups is not None:
            order = _by_group(order, self.groups, self.batch_size)
        shards = self._shards(order)[start:]
        if self.images.in_files:
            return self._from_files(shards, epoch)
        return self._from_memory(shards, epoch)

    def _shards(self, order: Tensor) -> list[Tensor]:
        """(num,) positions in the order of an epoch -> this loader's shard of each batch."""
        batches = list(order.split(self.batch_size))
        if len(batches) > len(self) and not self.drop_last:
            batches[-2:] = [torch.cat(batches[-2:])]
        return [_shard(batch, self.shard, self.unit) for batch in batches[: len(self)]]

    def _replacements(self) -> Tensor:
        """(n,) positions of the images that may replace broken ones, in stored order."""
        if self.groups is None:
            return torch.arange(self.num_images)
        return (self.groups >= 0).nonzero()[:, 0]

    def _from_memory(self, shards: list[Tensor], epoch: int) -> Iterator[Batch]:
        device, preprocess = self.images.device, self.preprocess
        for shard in shards:
            indices = shard.to(device)
            random = SampleRandom(self.seed, epoch, indices)
            if isinstance(self.images, LabeledImages) and not preprocess.per_sample:
                batch = Batch(*self.images.batch(indices), indices)
            else:
                samples = [
                    preprocess.sample(self.images[index], random.sample(number))
                    for number, index in enumerate(shard.tolist())
                ]
                batch = preprocess.collate(samples).to(device)
            yield preprocess.batch(batch, random)

    def _from_files(self, shards: list[Tensor], epoch: int) -> Iterator[Batch]:
        images, num_images = self.images, 0
        device = images.device
        # Other shards of the same batch may have images.
        skip_empty = self.drop_last or self.shard[1] == 1
        reader = _Reader(
            images.to(torch.device("cpu")),
            self.preprocess,
            seed=self.seed,
            epoch=epoch,
            replacements=self._replacements() if self.drop_last else None,
        )
        for batch, broken in map_in_workers(
            reader, shards, num_workers=self.num_workers, pin_memory=device.type == "cuda"
        ):
            images.add_broken(broken)
            num_images += len(batch)
            if len(batch) or not skip_empty:
                yield batch.to(device)
        if shards and skip_empty and not num_images:
            raise DataError(f"no usable image: {describe_broken(images.broken)}")


def _by_group(order: Tensor, groups: Tensor, batch_size: int) -> Tensor:
    """An order of an epoch -> the same order with batches of one group each, as far as possible.

    A batch comes when its last image would have come. Images that fill no batch of their group
    share the remaining batches, the last of which may be smaller.

    Args:
        order: (num,) positions of all images.
        groups: (num,) of the images, see ``Preprocess.groups``.
        batch_size: images in a batch.
    """
    groups = groups[order]
    batches, rest = [], []
    for group in groups[groups >= 0].unique():
        own = (groups == group).nonzero()[:, 0]
        full = len(own) - len(own) % batch_size
        batches += own[:full].split(batch_size)
        rest.append(own[full:])
    mixed = list(torch.cat(rest).sort().values.split(batch_size))
    last = mixed.pop() if mixed and len(mixed[-1]) < batch_size else order[:0]
    batches = sorted([*batches, *mixed], key=lambda batch: int(batch[-1]))
    return order[torch.cat([*batches, last])]


def _shard(batch: Tensor, shard: tuple[int, int], unit: int) -> Tensor:
    """The shard (index, number of shards) of a batch that is split at multiples of ``unit``."""
    own, count = shard
    starts = torch.arange(0, len(batch), unit).tensor_split(count)[own]
    return batch[starts[0] : starts[-1] + unit]


class _Read(NamedTuple):
    """A batch, which may be empty, and the error messages of images that could not be read."""

    batch: Batch
    broken: dict[str, str]


class _Reader:
    """Makes batches of files: (B,) positions -> a batch on the CPU; runs inside the workers."""

    def __init__(
        self,
        images: ImageSet,
        preprocess: Preprocess,
        *,
        seed: int,
        epoch: int,
        replacements: Tensor | None,
    ) -> None:
        self.images, self.preprocess = images, preprocess
        self.seed, self.epoch, self.replacements = seed, epoch, replacements
        self.broken = dict(images.broken)

    def __call__(self, positions: Tensor) -> _Read:
        broken: dict[str, str] = {}
        found = [self._first_readable(position, broken) for position in positions.tolist()]
        samples = [sample for sample in found if sample is not None]
        if not samples:
            return _Read(self._empty(int(positions[0])), broken)
        batch = self.preprocess.collate(samples)
        return _Read(self.preprocess.batch(batch, self._random(batch.indices)), broken)

    def _random(self, indices: Tensor) -> SampleRandom:
        return SampleRandom(self.seed, self.epoch, indices)

    def _empty(self, position: int) -> Batch:
        """A batch with no images, but with the usual image size and kind of target."""
        random = self._random(torch.tensor([0]))
        batch = self.preprocess.collate(
            [self.preprocess.sample(self.images.blank(position), random)]
        )
        return self.preprocess.batch(batch, random)[:0]

    def _candidates(self, position: int) -> Iterator[int]:
        """A position and those of the images that may replace it, the next one first."""
        if self.replacements is None:
            yield position
            return
        start = int(torch.searchsorted(self.replacements, position))
        for step in range(len(self.replacements)):
            yield int(self.replacements[(start + step) % len(self.replacements)])

    def _first_readable(
        self, position: int, broken: dict[str, str]
    ) -> tuple[Sample, Placement] | None:
        """The preprocessed sample at a position or, if it is replaced, the next readable one."""
        for index in self._candidates(position):
            path = self.images.location(index)
            # This process does not try a broken file again in this epoch.
            if path in self.broken:
                broken[path] = self.broken[path]
                continue
            try:
                sample = self.images[index]
            except ReadError:
                raise
            except DataError as error:
                self.broken[path] = broken[path] = str(error)
                continue
            return self.preprocess.sample(sample, self._random(torch.tensor([index])))
        return None
