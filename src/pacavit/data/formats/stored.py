"""Labeled images that stay in files until they are needed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from pacavit.data.base import LabeledImages
from pacavit.data.formats.image import MAX_PIXELS, fit_image

__all__ = ["StoredImages"]


class StoredImages(LabeledImages):
    """One split whose images are decoded when they are needed; a subclass reads one.

    Args:
        labels: (num,) int64, or (num, classes) uint8.
        size: (height, width) of the images of ``batch``, which fits them with ``fit_image``.
        max_pixels: largest image that is decoded.
        device: of labels and batches.
    """

    in_files = True

    def __init__(
        self,
        labels: Tensor,
        size: tuple[int, int],
        *,
        max_pixels: int = MAX_PIXELS,
        device: torch.device | str = "cpu",
    ) -> None:
        self.size, self.max_pixels = size, max_pixels
        self.labels = labels.to(device)
        self.broken: dict[str, str] = {}
        self._device = torch.device(device)

    @property
    def device(self) -> torch.device:
        """The device of labels and batches."""
        return self._device

    def add_broken(self, broken: Mapping[str, str]) -> None:
        """Record images that could not be read, by their places."""
        self.broken.update(broken)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) positions -> (B, 3, height, width) uint8 and the B rows of ``labels``.

        Raises:
            DataError: one of the images is broken or too large.
        """
        images = [fit_image(self[index].image, self.size) for index in indices.tolist()]
        return torch.stack(images).to(self.device), self.labels[indices]

    def to(self, device: torch.device) -> Self:
        """The same images, with labels and batches on another device; ``broken`` is shared."""
        moved = copy.copy(self)
        moved.labels, moved._device = self.labels.to(device), torch.device(device)
        return moved
