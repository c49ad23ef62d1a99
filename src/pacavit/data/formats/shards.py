"""Images that are packed into shards: files of thousands of images, each found by its position."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pacavit.data.base import SPLITS, Sample
from pacavit.data.formats.image import MAX_PIXELS, decode_image
from pacavit.data.formats.stored import StoredImages
from pacavit.data.formats.walk import is_system
from pacavit.data.splits import split_of
from pacavit.errors import DataError
from pacavit.utils.files import read_bounded
from pacavit.utils.text import first_few, shown

__all__ = ["EncodedImages", "RowListing", "ShardImages", "find_split_shards", "read_names"]

_NAMES = ("classes.txt", "class_names.txt", "names.txt")
_MAX_BYTES = 2**24
_PROMISED = re.compile(r"-of-(\d{1,9})", re.ASCII)


class EncodedImages(Protocol):
    """The encoded images of some shards by position; several processes may read them."""

    def encoded(self, row: int) -> bytes:
        """The bytes of an image file; raises DataError if there are none."""

    def location(self, row: int) -> str:
        """Shard and row, for messages."""


@dataclass(frozen=True, eq=False)
class RowListing:
    """Rows of shards with their labels.

    Attributes:
        files: (num,) bytes, a name for each row, by which images are held out.
        labels: (num,) int64.
        rows: (num,) int64, positions in all shards together.
    """

    files: NDArray[np.bytes_]
    labels: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, positions: Tensor) -> RowListing:
        """The entries at (num,) int64 positions."""
        return RowListing(
            self.files[positions.numpy()], self.labels[positions], self.rows[positions]
        )


class ShardImages(StoredImages):
    """One split whose images are read from shards.

    Args:
        images: of all shards.
        rows: (num,) int64, positions of the images of this split.
        labels: (num,) int64.
        size: (height, width) of the images of ``batch``, which fits them with ``fit_image``.
        max_pixels: largest image that is decoded.
        device: of labels and batches.
    """

    def __init__(
        self,
        images: EncodedImages,
        rows: Tensor,
        labels: Tensor,
        size: tuple[int, int],
        *,
        max_pixels: int = MAX_PIXELS,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(labels, size, max_pixels=max_pixels, device=device)
        self.images, self.rows = images, rows

    def location(self, index: int) -> str:
        """Shard and row of the image at a position."""
        return self.images.location(int(self.rows[index]))

    def __getitem__(self, index: int) -> Sample:
        """The image at a position as it is stored: (3, H, W) uint8 of any size, on the CPU.

        Raises:
            DataError: it is missing, broken or too large; one line with its shard and row.
        """
        encoded, name = self.encoded(index), self.location(index)
        image = decode_image(encoded, name, max_pixels=self.max_pixels)
        return Sample(image, self.labels[index], index)

    def encoded(self, index: int) -> bytes:
        """The bytes of the image file at a position; raises DataError if there are none."""
        return self.images.encoded(int(self.rows[index]))


def find_split_shards(root: Path, suffix: str) -> dict[str, list[Path]]:
    """The shards of each split, sorted by name; all under the key "" if no name has a split.

    A name has a split if one of its words is a usual name of one: ``train-00000-of-00010.parquet``,
    ``imagenet1k-validation-07.tar``.

    Args:
        root: a folder with the shards in it or in its folder ``data``; one shard; or a pattern of
            names in a folder, ``folder/train-*.parquet``.
        suffix: of the shards.

    Raises:
        DataError: there are no shards, some of those that names promise are missing
            (``-of-00010``), or only some have a split in their names.
    """
    if "*" in root.name:
        found = sorted(root.parent.glob(root.name))
    elif root.is_dir():
        found = sorted(root.glob(f"*{suffix}")) or sorted((root / "data").glob(f"*{suffix}"))
    else:
        found = [root]
    files = [
        file
        for file in found
        if file.suffix == suffix and file.is_file() and not is_system(file.name)
    ]
    if not files:
        raise DataError(
            f"there are no files *{suffix} in {shown(root)}; name their folder with --data ROOT"
        )
    groups: dict[str, list[Path]] = {}
    for file in files:
        words = re.findall(r"[a-z]+", file.stem.lower())
        split = next(filter(None, map(split_of, words)), "")
        groups.setdefault(split, []).append(file)
    if "" in groups and len(groups) > 1:
        raise DataError(
            f"{shown(groups[''][0])} has no split in its name, and other shards have; name all "
            "alike (train-*, validation-*, test-*), or move it elsewhere"
        )
    for split, shards in groups.items():
        _check_number(shards, split, suffix)
    return {split: groups[split] for split in (*SPLITS, "") if split in groups}


def _check_number(shards: Sequence[Path], split: str, suffix: str) -> None:
    promised = {int(found[1]) for shard in shards if (found := _PROMISED.search(shard.stem))}
    if len(promised) == 1 and len(shards) < (number := promised.pop()):
        raise DataError(
            f"{shown(shards[0].parent)} holds {len(shards)} of {number} {split} files *{suffix}; "
            "add the missing ones"
        )


def read_names(folder: Path, file: Path | None) -> tuple[str, ...] | None:
    """Class names in label order, one a line, of a file; None if there is none.

    Args:
        folder: is searched for ``classes.txt``, ``class_names.txt`` and ``names.txt``.
        file: to read instead, which has to exist.

    Raises:
        DataError: the file cannot be read, or names a class twice.
    """
    if file is None:
        file = next((folder / name for name in _NAMES if (folder / name).is_file()), None)
    if file is None:
        return None
    try:
        text = read_bounded(file, _MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{shown(file)} is not a text in UTF-8") from None
    except OSError as error:
        raise DataError(f"cannot read {shown(file)}: {error.strerror or error}") from error
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        raise DataError(f"{shown(file)} names a class twice: {first_few(repeated)}; rename one")
    return names
