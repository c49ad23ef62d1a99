"""Batches of an image set."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pacavit.data.base import Batch, ImageSet
from pacavit.data.randomness import SampleRandom, epoch_order
from pacavit.errors import DataError

__all__ = ["Loader", "Transform"]

Transform = Callable[[Tensor, SampleRandom], Tensor]
"""(B, 3, H, W) uint8 images, their random draws -> (B, 3, height, width) float, channels-last."""


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
        seed: of the order and of the transform's draws.
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
        """
        num, device = len(self.images), self.images.device
        order = epoch_order(num, self.seed, epoch) if self.shuffle else torch.arange(num)
        for share in self._shares(order)[start:]:
            indices = share.to(device)
            images, labels = self.images.batch(indices)
            images = self.transform(images, SampleRandom(self.seed, epoch, indices))
            yield Batch(images, labels, indices)

    def _shares(self, order: Tensor) -> list[Tensor]:
        """(num,) positions in the order of an epoch -> this loader's part of each batch."""
        own, parts = self.part
        batches = list(order.split(self.batch_size))
        if len(batches) > len(self) and not self.drop_last:
            batches[-2:] = [torch.cat(batches[-2:])]
        return [batch.tensor_split(parts)[own] for batch in batches[: len(self)]]
