"""Batches of an image set."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pacavit.data.base import Batch, ImageSet
from pacavit.data.randomness import SampleRandom, epoch_order
from pacavit.errors import DataError

__all__ = ["BatchTransform", "Loader", "Transform"]

Transform = Callable[[Tensor, SampleRandom], Tensor]
"""(B, 3, H, W) uint8 images, their random draws -> (B, 3, height, width) float, channels-last."""

BatchTransform = Callable[[Batch, SampleRandom], Batch]
"""A batch ready for a network, its random draws -> the same with its images mixed."""


class Loader:
    """Batches of an image set, epoch by epoch; what an epoch holds depends on its number alone.

    A loader is cheap: to change the transform between epochs (another resolution), make another
    loader over the same images. Visiting order and draws do not change with it. The images may
    lie on any device; batches are made there.

    Args:
        images: one split.
        batch_size: images in a batch; the last one of an epoch may be smaller.
        transform: turns the stored images of a batch into the network's input.
        shuffle: visit the images in a new order every epoch, rather than as stored.
        drop_last: leave out a last batch that is not full.
        seed: of the order and of the draws of both transforms.
        batch_transform: changes images and labels of a batch together, in the end.

    Raises:
        DataError: there would be no batch at all.
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
        batch_transform: BatchTransform | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if len(images) == 0:
            raise DataError("there are no images to make batches of")
        if drop_last and len(images) < batch_size:
            raise DataError(
                f"{len(images)} images do not fill one batch of {batch_size}; lower the batch size"
            )
        self.images, self.batch_size, self.transform = images, batch_size, transform
        self.batch_transform = batch_transform
        self.shuffle, self.drop_last, self.seed = shuffle, drop_last, seed

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(len(self.images), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch.

        Args:
            epoch: counted from 0.
            start: batches to leave out at the beginning, at no cost: a run that was interrupted
                after ``start`` batches goes on with the ones it would have seen.
        """
        num, device = len(self.images), self.images.device
        order = epoch_order(num, self.seed, epoch) if self.shuffle else torch.arange(num)
        for position in range(start, len(self)):
            first = position * self.batch_size
            indices = order[first : first + self.batch_size].to(device)
            images, labels = self.images.batch(indices)
            random = SampleRandom(self.seed, epoch, indices)
            batch = Batch(self.transform(images, random), labels, indices)
            yield batch if self.batch_transform is None else self.batch_transform(batch, random)
