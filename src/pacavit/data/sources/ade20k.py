"""ADE20K scene parsing, or any images with masks in the layout of its release.

Source: B. Zhou et al.: "Scene Parsing through ADE20K Dataset", CVPR 2017;
http://sceneparsing.csail.mit.edu
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from pacavit.data.base import DATASETS, IGNORE_INDEX, Color, MaskInfo, Split
from pacavit.data.formats.class_list import ListedClass, read_class_list
from pacavit.data.formats.image import MAX_PIXELS
from pacavit.data.formats.masks import MaskCoding, find_values
from pacavit.data.formats.pairs import Pairs
from pacavit.data.formats.walk import Skipped, sub_folders
from pacavit.data.palette import class_colors
from pacavit.data.sources.paired import PairedSource, pair_splits, splits_in
from pacavit.data.splits import hold_out_missing
from pacavit.errors import DataError
from pacavit.utils.text import shown

__all__ = ["Ade20k", "published_classes"]

_LISTS = ("objectInfo150.txt", "objectInfo.txt")
_LAYOUT = (
    "images/ and annotations/, each with training/, validation/ and perhaps test/, and "
    "objectInfo150.txt or objectInfo.txt with the names of classes"
)
_UNLABELED = (0, IGNORE_INDEX)


@DATASETS.register("ade20k")
class Ade20k(PairedSource):
    """ADE20K's scene parsing, and other data in its layout.

    ROOT/images/training, /validation and /test hold the images, ROOT/annotations has the same
    folders with a PNG for each image. A value of 0 in a mask means unlabeled, as does 255; class 1
    is the first of the list. Names come from the columns ``Idx`` and ``Name`` of
    ROOT/objectInfo150.txt or ROOT/objectInfo.txt. Without such a file, classes have the published
    names if the largest value is 150, and are called "class 1", "class 2" and so on otherwise.

    "train" and "val" are the published folders "training" and "validation". ADE20K publishes no
    masks of its test images: evaluate with ``--split val``.

    Images are normalized with ImageNet's mean and standard deviation.

    Args:
        root: the folder with images/ and annotations/.
        val_size: images held out for validation, if there is no folder of them; None: about 15 %.
        max_pixels: images with more pixels are left out, like broken ones.
        min_side: images with a shorter side are refused.
        unpaired: refuse or skip images without masks, and masks without images.

    Raises:
        DataError: the layout is different, the list of classes is wrong, or files lack a partner.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        val_size: int | None = None,
        max_pixels: PositiveInt = MAX_PIXELS,
        min_side: NonNegativeInt = 16,
        unpaired: Literal["refuse", "skip"] = "refuse",
    ) -> None:
        if root is None:
            raise DataError(f"ADE20K is not downloaded; name its folder with --data: {_LAYOUT}")
        folders, names = _folders(root)
        skipped = Skipped()
        found, left_out = pair_splits(root, folders, skipped, skip_unpaired=unpaired == "skip")
        classes, note = _classes(root, names, found)
        values = [entry.value for entry in classes if entry.value is not None]
        skips = skipped.describe(root)
        super().__init__(
            root,
            name="ade20k",
            layout="ADE20K layout",
            class_names=[entry.name for entry in classes],
            masks=MaskInfo(tuple(values), _colors(classes)),
            coding=MaskCoding.of(values, None, ignored_values=_UNLABELED),
            pairs=hold_out_missing(root, found, val_size, None),
            max_pixels=max_pixels,
            min_side=min_side,
            notes=[line for line in (skips, str(left_out), note) if line],
        )

    def _remedy(self, split: Split) -> str:
        if split == "test":
            return ": ADE20K publishes no masks of its test images; evaluate with --split val"
        return f"; it is {_LAYOUT}"


def _folders(root: Path) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """The folders of images and masks of each split, and the names of the files in the root.

    Splits without a folder of masks are left out.

    Raises:
        DataError: the layout is different.
    """
    inside, files = sub_folders(root)
    for name in ("images", "annotations"):
        if name not in inside:
            raise DataError(f"{shown(root)} has no folder {name}; ADE20K's layout is {_LAYOUT}")
    images, masks = splits_in(root / "images"), splits_in(root / "annotations")
    for split, folder in masks.items():
        if split not in images:
            raise DataError(
                f"{shown(folder)} has no folder of images; ADE20K's layout is {_LAYOUT}"
            )
    if not masks:
        raise DataError(
            f"{shown(root / 'annotations')} has no folder of a split; ADE20K's layout is {_LAYOUT}"
        )
    for split in ("train", "val"):
        if split in images and split not in masks:
            raise DataError(f"{shown(images[split])} has no folder of masks in annotations/")
    return {split: (images[split], folder) for split, folder in masks.items()}, files


def _classes(
    root: Path, names: Sequence[str], pairs: Mapping[str, Pairs]
) -> tuple[tuple[ListedClass, ...], str | None]:
    """The classes with their values, and a line on where their names come from."""
    listed = next((name for name in _LISTS if name in names), None)
    if listed is None:
        return _unlisted(root, pairs)
    classes = read_class_list(root / listed)
    values = [
        number if entry.value is None else entry.value for number, entry in enumerate(classes, 1)
    ]
    wrong = sorted(set(_UNLABELED) & set(values))
    if wrong:
        raise DataError(
            f"{shown(root / listed)} has a class of value {wrong[0]}, which is unlabeled in "
            "ADE20K's layout; data.name=masks reads masks of any values"
        )
    first = [entry.name.split(",")[0].strip() for entry in classes]
    if len(set(first)) < len(classes):  # synonyms are needed to tell classes apart
        first = [entry.name for entry in classes]
    return tuple(
        ListedClass(name, value, entry.color)
        for name, value, entry in zip(first, values, classes, strict=True)
    ), None


def _unlisted(root: Path, pairs: Mapping[str, Pairs]) -> tuple[tuple[ListedClass, ...], str | None]:
    """The classes of masks without a list, from the largest value."""
    paths = [root / os.fsdecode(mask) for each in pairs.values() for mask in each.masks]
    largest = max((v for v in find_values(paths).values if v not in _UNLABELED), default=0)
    where = f"{shown(root)} has no {' or '.join(_LISTS)}"
    published = published_classes()
    if largest == len(published):
        return published, f"{where}: classes have the names that ADE20K published"
    return (
        tuple(ListedClass(f"class {value}", value) for value in range(1, largest + 1)),
        f"{where}: classes are called by their values, 1 to {largest}",
    )


@cache
def published_classes() -> tuple[ListedClass, ...]:
    """The 150 classes of scene parsing with their published colors; two colors are the same."""
    text = resources.files(__package__).joinpath("ade20k.csv").read_text(encoding="utf-8")
    return tuple(
        ListedClass(row["name"], int(row["value"]), (int(row["r"]), int(row["g"]), int(row["b"])))
        for row in csv.DictReader(text.splitlines())
    )


def _colors(classes: Sequence[ListedClass]) -> tuple[Color, ...]:
    """The colors of the list, the published ones for the published names, or default ones."""
    published = {entry.name: entry.color for entry in published_classes()}
    names = [entry.name for entry in classes]
    known = published if set(names) == set(published) else {}
    defaults = class_colors(names)
    return tuple(
        entry.color or known.get(entry.name) or default
        for entry, default in zip(classes, defaults, strict=True)
    )
