"""Stratified splits that are the same for every user, platform and library version."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pacavit.data.base import SPLITS, MemoryImages, Split
from pacavit.data.random import epoch_order
from pacavit.errors import DataError
from pacavit.utils.text import shown

__all__ = [
    "SPLIT_NAMES",
    "FileList",
    "hold_out_missing",
    "hold_out_validation",
    "named_holdout",
    "split_of",
    "stratified_holdout",
    "take",
]

_HELD_OUT = 0.15  # default fraction of the images for validation, and for testing
SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Common names of splits, in lower case."""
_SPLIT_SUFFIX = re.compile(r"[ _-]*(set|\d{4})$")  # "train2017", "test_set"


class FileList(Protocol):
    """Files that can be divided among splits."""

    @property
    def files(self) -> NDArray[np.bytes_]:
        """(num,) paths."""

    @property
    def labels(self) -> Tensor:
        """(num,) int64, of which each split gets the same fractions."""

    def __len__(self) -> int:
        """Number of files."""

    def at(self, positions: Tensor) -> Self:
        """The entries at (num,) int64 positions."""


Files = TypeVar("Files", bound=FileList)


def split_of(name: str) -> Split | None:
    """The split that a folder's name means; None if it is not one of the common names.

    Case does not matter; "set" or a year may follow, as in ``Test_Set`` and ``train2017``.
    """
    word = _SPLIT_SUFFIX.sub("", name.lower())
    return next((split for split, names in SPLIT_NAMES.items() if word in names), None)


def stratified_holdout(
    labels: Tensor, size: int, seed: int = 0, *, order: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Split positions in two subsets that both have the class balance of the whole.

    The same fraction of each class is held out, rounded down; the remaining positions are taken
    from the classes with the largest remainders, the lower label first.

    Args:
        labels: (num,) int64, >= 0.
        size: number of positions to hold out.
        seed: of the random order, if ``order`` is None.
        order: (num,) int64, all positions; the first ones of each class are held out. None: a
            random order.

    Returns:
        (num - size,) and (size,) int64 positions, each in ascending order: those that are kept, and
        those that are held out.

    Raises:
        DataError: ``size`` is negative, or no position would be kept.
    """
    num = len(labels)
    if not 0 <= size < num:
        raise DataError(
            f"cannot hold out {size} of {num} images; choose 0 to {num - 1} (data.val_size)"
        )
    counts = torch.bincount(labels)
    quota, remainder = (counts * size) // num, (counts * size) % num
    short = size - int(quota.sum())
    quota[remainder.argsort(descending=True, stable=True)[:short]] += 1
    if order is None:
        order = epoch_order(num, seed, epoch=0)
    held = torch.zeros(num, dtype=torch.bool)
    for label, number in enumerate(quota.tolist()):
        held[order[labels[order] == label][:number]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def named_holdout(
    names: NDArray[np.bytes_], labels: Tensor, size: int | float | None, purpose: str
) -> tuple[Tensor, Tensor]:
    """Split positions in two by a hash of their names, so that added names do not move others.

    With a fraction (float), a name is held out if its hash, scaled to 0..1, is below the fraction;
    if that holds out no name of a class with two or more, the name with the smallest hash is held
    out. Adding names to such a class never causes a name that was kept to be held out.

    With a number (int), exactly that many names are held out, stratified, those with the smallest
    hashes of each class first; adding names may then move a few others.

    Args:
        names: (num,) bytes, all different.
        labels: (num,) int64, >= 0.
        size: fraction of the positions, or their number; None: 15 %.
        purpose: is part of the hash, so that each purpose holds out other names; up to 16 letters.

    Returns:
        The positions that are kept and those that are held out, as in ``stratified_holdout``.

    Raises:
        DataError: a number is negative, or no position would be kept.
    """
    person, num_bytes = purpose.encode(), 6  # float64 holds 6 bytes exactly
    digests = (
        hashlib.blake2b(name, digest_size=num_bytes, person=person).digest()
        for name in names.tolist()
    )
    scores = torch.tensor(
        [int.from_bytes(digest, "big") / 256**num_bytes for digest in digests], dtype=torch.float64
    )
    size = _HELD_OUT if size is None else size
    if isinstance(size, int):
        return stratified_holdout(labels, size, order=scores.argsort(stable=True))
    held = scores < size
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        if len(members) > 1 and not held[members].any():
            held[members[scores[members].argmin()]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def hold_out_missing(
    root: Path,
    folders: Mapping[str, Files],
    val_size: int | None,
    test_size: int | None,
    evaluated: Split | None = None,
) -> dict[Split, Files]:
    """The files of each split; those of splits without a folder are held out.

    Test files are held out only if there are no split folders at all, or ``test_size`` says how
    many. They are chosen by their names, see ``named_holdout``.

    Args:
        root: of the data, for messages.
        folders: files by split; or all under the key "", if there are no split folders.
        val_size: files held out for validation; None: about 15 % of those not for testing.
        test_size: files held out for testing; None: about 15 %, where any are.
        evaluated: the only split that is needed, of data that the sizes were not given for; a size
            of a split that has its own folder is then ignored. None: all splits are needed.

    Raises:
        DataError: a size is given of a split that has its own folder, or does not fit.
    """
    splits: dict[Split, Files] = {split: folders[split] for split in SPLITS if split in folders}
    whole = "" in folders
    if whole:
        splits["train"] = folders[""]
    sizes: tuple[tuple[Split, int | None], ...] = (("test", test_size), ("val", val_size))
    for split, size in sizes:
        if split in splits:
            if size is not None and evaluated is None:
                raise DataError(
                    f"{split}_size has no effect: {shown(root)} has a folder of {split} images"
                )
        elif "train" in splits and (whole or split == "val" or size is not None):
            train = splits["train"]
            kept, held = named_holdout(train.files, train.labels, size, split)
            splits["train"], splits[split] = train.at(kept), train.at(held)
        if split == evaluated:
            break
    return splits


def take(images: MemoryImages, positions: Tensor) -> MemoryImages:
    """The images at (num,) int64 positions, copied."""
    return MemoryImages(*images.batch(positions))


def hold_out_validation(full: MemoryImages, val_size: int) -> tuple[MemoryImages, MemoryImages]:
    """Split the original training images into training and validation, always the same way.

    Returns:
        The training and the validation images; the latter may be empty.

    Raises:
        DataError: ``val_size`` is negative, or leaves no training images.
    """
    if val_size == 0:
        return full, take(full, torch.empty(0, dtype=torch.int64))
    kept, held = stratified_holdout(full.labels, val_size)
    return take(full, kept), take(full, held)
