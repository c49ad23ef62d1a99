"""Stratified splits that are the same for every user, platform and library version."""

from __future__ import annotations

import torch
from torch import Tensor

from pacavit.data.base import MemoryImages
from pacavit.data.randomness import epoch_order
from pacavit.errors import DataError

__all__ = ["hold_out_validation", "stratified_holdout", "take"]


def stratified_holdout(labels: Tensor, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Split positions in two so that both parts have the class balance of the whole.

    Each class gives its proportional share, rounded down; the places that rounding left go to
    the classes with the largest remainders, the lower label first.

    Args:
        labels: (num,) int64, >= 0.
        size: positions to hold out.
        seed: which positions of a class are drawn.

    Returns:
        (num - size,) and (size,) int64 positions, each in rising order: what stays, what is held
        out.

    Raises:
        DataError: ``size`` is negative or leaves nothing.
    """
    num = len(labels)
    if not 0 <= size < num:
        raise DataError(
            f"cannot hold out {size} of {num} images; choose 0 to {num - 1} (data.val_size)"
        )
    counts = torch.bincount(labels)
    share, remainder = (counts * size) // num, (counts * size) % num
    short = size - int(share.sum())
    share[remainder.argsort(descending=True, stable=True)[:short]] += 1
    order = epoch_order(num, seed, epoch=0)
    held = torch.zeros(num, dtype=torch.bool)
    for label, places in enumerate(share.tolist()):
        held[order[labels[order] == label][:places]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def take(images: MemoryImages, positions: Tensor) -> MemoryImages:
    """The images at (num,) int64 positions, copied."""
    return MemoryImages(*images.batch(positions))


def hold_out_validation(full: MemoryImages, val_size: int) -> tuple[MemoryImages, MemoryImages]:
    """Part the official training images into training and validation, always the same way.

    Returns:
        The training and the validation images; the latter may be empty.

    Raises:
        DataError: ``val_size`` is negative or leaves nothing to train on.
    """
    if val_size == 0:
        return full, take(full, torch.empty(0, dtype=torch.int64))
    kept, held = stratified_holdout(full.labels, val_size)
    return take(full, kept), take(full, held)
