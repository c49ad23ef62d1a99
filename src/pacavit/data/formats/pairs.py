"""Folders of images and folders of masks, matched by the names of their files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pacavit.data.formats.walk import Skipped, walk_folders
from pacavit.errors import DataError
from pacavit.utils.text import first_few, shown

__all__ = ["Pairs", "Unpaired", "pair_folders"]

_MASK_SUFFIX = re.compile(
    r"[ _.-](mask|masks|label|labels|gt|seg|segmentation|annotation)$", re.IGNORECASE
)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Image files with the files of their masks.

    Attributes:
        files: (num,) bytes, paths of the images relative to the root of the data. An array, because
            a list of strings would be copied into each worker when it is read.
        masks: (num,) bytes, paths of their masks.
    """

    files: NDArray[np.bytes_]
    masks: NDArray[np.bytes_]

    @property
    def labels(self) -> Tensor:
        """(num,) zeros: all images are alike where some are held out."""
        return torch.zeros(len(self.files), dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.files)

    def at(self, positions: Tensor) -> Pairs:
        """The entries at (num,) int64 positions."""
        return Pairs(self.files[positions.numpy()], self.masks[positions.numpy()])


@dataclass(frozen=True)
class Unpaired:
    """Files without a partner, as paths relative to the root of the data.

    Attributes:
        images: without a mask.
        masks: without an image.
    """

    images: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.images or self.masks)

    def __add__(self, other: Unpaired) -> Unpaired:
        return Unpaired(self.images + other.images, self.masks + other.masks)

    def __str__(self) -> str:
        kinds = (
            (self.images, "image has no mask", "images have no mask"),
            (self.masks, "mask has no image", "masks have no image"),
        )
        return ", and ".join(
            f"{len(paths):,} {one if len(paths) == 1 else many} "
            f"({first_few([shown(path) for path in paths])})"
            for paths, one, many in kinds
            if paths
        )


def pair_folders(root: Path, images: Path, masks: Path, skipped: Skipped) -> tuple[Pairs, Unpaired]:
    """The images of one folder with the masks of another, sorted by the bytes of their paths.

    Two files belong together if their paths in the two folders differ in the suffix only; or also
    by an end such as "_mask" of the mask's name.

    Args:
        root: what the listed paths are relative to; contains both folders.
        images: folder of images, in it or below.
        masks: folder of masks, likewise.
        skipped: receives all other entries.

    Raises:
        DataError: a folder cannot be read, holds two files of one name, or no two files belong
            together.
    """
    image_files = _by_stem(root, images, skipped)
    mask_files: dict[str, str] = {}
    for stem, path in _by_stem(root, masks, skipped).items():
        shorter = _MASK_SUFFIX.sub("", stem)
        key = stem if stem in image_files or shorter not in image_files else shorter
        _add(mask_files, key, path)
    both = sorted(image_files.keys() & mask_files.keys(), key=os.fsencode)
    unpaired = Unpaired(
        tuple(path for stem, path in image_files.items() if stem not in mask_files),
        tuple(path for stem, path in mask_files.items() if stem not in image_files),
    )
    for files, folder in ((image_files, images), (mask_files, masks)):
        if not files:
            raise DataError(
                f"no images in {shown(folder)}, whose names end in .png, .jpg and so on"
            )
    if not both:
        examples = [shown(next(iter(files.values()))) for files in (image_files, mask_files)]
        raise DataError(
            f"none of the {len(image_files):,} images in {shown(images)} has a mask in "
            f"{shown(masks)}: {examples[0]} and {examples[1]}, for example, have different names; "
            "give each mask the name of its image"
        )
    return Pairs(
        _paths([image_files[stem] for stem in both]), _paths([mask_files[stem] for stem in both])
    ), unpaired


def _by_stem(root: Path, folder: Path, skipped: Skipped) -> dict[str, str]:
    """Paths relative to a root of the images in a folder, by their path in it without suffix."""
    found: dict[str, str] = {}
    paths = [path for _, path in walk_folders(root, [folder], skipped)]
    for path in sorted(paths, key=os.fsencode):
        inside = PurePath(os.path.relpath(root / path, folder))
        _add(found, str(inside.with_suffix("")), path)
    return found


def _add(found: dict[str, str], stem: str, path: str) -> None:
    other = found.setdefault(stem, path)
    if other != path:
        raise DataError(
            f"{shown(other)} and {shown(path)} are for one image; keep one of them, or rename it"
        )


def _paths(paths: Sequence[str]) -> NDArray[np.bytes_]:
    return np.array([os.fsencode(path) for path in paths])
