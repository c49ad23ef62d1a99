"""Your own images with masks: a folder of images, and a folder of masks of the same names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import NonNegativeInt, PositiveInt

from pacavit.data.base import DATASETS, IGNORE_INDEX, Color, MaskInfo, Split
from pacavit.data.formats.class_list import (
    ListedClass,
    check_class_list,
    parse_color,
    read_class_list,
)
from pacavit.data.formats.image import MAX_PIXELS
from pacavit.data.formats.masks import MaskCoding, find_values, palette_colors
from pacavit.data.formats.walk import Skipped, sub_folders
from pacavit.data.palette import class_colors
from pacavit.data.sources.paired import PairedSource, pair_splits, splits_in
from pacavit.data.splits import SPLIT_NAMES, hold_out_missing
from pacavit.errors import DataError, UnknownNameError
from pacavit.utils.text import first_few, shown

__all__ = ["Masks"]

_IMAGES = ("images", "image", "imgs", "img", "jpegimages")
_MASKS = (
    "masks",
    "mask",
    "labels",
    "label",
    "annotations",
    "annotation",
    "segmentations",
    "segmentation",
    "segmentationclass",
)
_LISTS = tuple(
    f"{name}.{suffix}"
    for name in ("classes", "palette", "labels", "labelmap", "class_dict", "objectinfo")
    for suffix in ("txt", "csv", "json")
)
_LAYOUT = "images/ and masks/, or train/images/ and train/masks/ and the same for val and test"


@DATASETS.register("masks")
class Masks(PairedSource):
    """Your own images, each with a mask of the same name in another folder.

    One of these layouts; without folders of splits, images are held out by their names::

        ROOT/images/1.jpg           ROOT/images/train/1.jpg     ROOT/train/images/1.jpg
        ROOT/masks/1.png            ROOT/masks/train/1.png      ROOT/train/masks/1.png
        ROOT/classes.txt            ROOT/classes.txt            ROOT/classes.txt

    The folder of masks may also be called labels, annotations or segmentations, and a mask
    "1_mask.png". Masks are PNG, BMP or TIFF files of the size of their images.

    ROOT/classes.txt lists the classes, one a line (also .csv or .json, see
    ``data.formats.class_list``):

    - names alone: the value of the first class in masks is 0, of the second 1, and so on;
    - ``VALUE NAME``: the classes have these values. Values are gray levels, of 8 or 16 bits, or
      indices of a palette, whose colors do not matter then;
    - ``NAME R G B`` or ``#RRGGBB NAME``: masks are read by their colors;
    - both, ``VALUE NAME R G B``: gray levels and indices by value, masks in RGB by color.

    Without a list, every value in the masks is a class, named "class 3", and its color is that of
    the palette, if there is one. Background is a class like others, unless it is ignored.

    Args:
        root: the folder.
        val_size: images held out for validation; None: about 15 % of those not for testing.
        test_size: images held out for testing; None: about 15 % without folders of splits, none
            otherwise.
        classes: names in label order, instead of a file, or those of a model to evaluate: classes
            of the file are matched by name, and others are refused.
        values: of ``classes`` in masks; None: those of the file, or 0, 1, 2 and so on.
        ignore: pixels that belong to no class: values, colors "#RRGGBB" or names of classes; None:
            the value 255, unless a class has it.
        max_pixels: images with more pixels are left out, like broken ones.
        min_side: images with a shorter side are refused.
        unpaired: refuse or skip images without masks, and masks without images.

    Raises:
        DataError: the layout is different, the list of classes is wrong, or files lack a partner.
    """

    refuses_duplicates = True

    def __init__(
        self,
        root: Path | None = None,
        *,
        val_size: int | None = None,
        test_size: NonNegativeInt | None = None,
        classes: tuple[str, ...] | None = None,
        values: tuple[NonNegativeInt, ...] | None = None,
        ignore: tuple[NonNegativeInt | str, ...] | None = None,
        max_pixels: PositiveInt = MAX_PIXELS,
        min_side: NonNegativeInt = 16,
        unpaired: Literal["refuse", "skip"] = "refuse",
    ) -> None:
        if root is None:
            raise DataError(f"a folder of images and masks is needed: --data ROOT with {_LAYOUT}")
        skipped = Skipped()
        found, left_out = pair_splits(
            root, _folders(root), skipped, skip_unpaired=unpaired == "skip"
        )
        paths = [root / os.fsdecode(mask) for each in found.values() for mask in each.masks]
        chosen = _choose_classes(root, paths, classes, values, ignore)
        super().__init__(
            root,
            name="masks",
            layout="folder of masks",
            class_names=chosen.names,
            masks=chosen.info,
            coding=chosen.coding,
            pairs=hold_out_missing(root, found, val_size, test_size),
            max_pixels=max_pixels,
            min_side=min_side,
            notes=[line for line in (skipped.describe(root), str(left_out), chosen.note) if line],
        )

    def _remedy(self, split: Split) -> str:
        return (
            f": there are no folders of {split} images and masks, and none of its images are held "
            "out for that; add the folders, or choose another split"
        )


def _folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """The folders of images and of masks of each split; under the key "" without splits.

    Test images without masks are left out.

    Raises:
        DataError: the layout is different.
    """
    images, masks = _named(root, _IMAGES), _named(root, _MASKS)
    if images is None or masks is None:
        inside = {
            split: (_named(folder, _IMAGES), _named(folder, _MASKS), folder)
            for split, folder in splits_in(root).items()
        }
    else:
        image_splits, mask_splits = splits_in(images), splits_in(masks)
        if not image_splits and not mask_splits:
            return {"": (images, masks)}
        inside = {
            split: (image_splits.get(split), mask_splits.get(split), root)
            for split in SPLIT_NAMES
            if split in image_splits or split in mask_splits
        }
    if not inside:
        missing = " and ".join(
            what for what, folder in (("images", images), ("masks", masks)) if folder is None
        )
        raise DataError(f"{shown(root)} has no folder of {missing}; it needs {_LAYOUT}")
    found: dict[str, tuple[Path, Path]] = {}
    for split, (image_folder, mask_folder, where) in inside.items():
        if image_folder is not None and mask_folder is not None:
            found[split] = image_folder, mask_folder
        elif split != "test" or image_folder is None:
            what = "images" if image_folder is None else "masks"
            raise DataError(f"{shown(where)} has no folder of {split} {what}; it needs {_LAYOUT}")
    if not found:
        raise DataError(f"{shown(root)} has no masks; it needs {_LAYOUT}")
    return found


def _named(folder: Path, names: Sequence[str]) -> Path | None:
    """The folder inside another that has one of some names; None if there is none.

    Raises:
        DataError: there are several.
    """
    found = [name for name in sub_folders(folder)[0] if name.lower() in names]
    if len(found) > 1:
        raise DataError(
            f"{shown(folder)} has the folders {' and '.join(map(shown, found))}; keep one of them"
        )
    return folder / found[0] if found else None


class _Ignored(NamedTuple):
    """What belongs to no class: the option ``ignore``, sorted by kind."""

    values: tuple[int, ...]
    colors: tuple[Color, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, ignore: Sequence[int | str]) -> _Ignored:
        values = tuple(each for each in ignore if isinstance(each, int))
        texts = {each: parse_color(each) for each in ignore if isinstance(each, str)}
        colors = tuple(color for color in texts.values() if color is not None)
        return cls(values, colors, tuple(name for name, color in texts.items() if color is None))

    def covers(self, entry: ListedClass) -> bool:
        return entry.name in self.names or entry.value in self.values or entry.color in self.colors


class _Choice(NamedTuple):
    """The classes of a folder.

    Attributes:
        names: in label order.
        info: their values and colors.
        coding: how masks are read.
        note: a line about where they come from; None if the user listed them.
    """

    names: tuple[str, ...]
    info: MaskInfo
    coding: MaskCoding
    note: str | None


def _choose_classes(
    root: Path,
    paths: Sequence[Path],
    classes: tuple[str, ...] | None,
    values: tuple[int, ...] | None,
    ignore: tuple[int | str, ...] | None,
) -> _Choice:
    """The classes from the file in a root, else from the options, else from the masks.

    Args:
        root: of the data.
        paths: of all masks.
        classes: option of the data set.
        values: likewise.
        ignore: likewise.

    Raises:
        DataError: the classes contradict each other.
    """
    ignored, note = _Ignored.of(() if ignore is None else ignore), None
    listed = _from_file(root) or _from_options(classes, values)
    if listed is None:
        listed, note = _from_masks(root, paths, (IGNORE_INDEX,) if ignore is None else ())
    unknown = set(ignored.names) - {entry.name for entry in listed}
    if unknown and classes is None:
        raise UnknownNameError(
            "class",
            min(unknown),
            [entry.name for entry in listed],
            f"in data.options.ignore, of {shown(root)}",
        )
    kept = [entry for entry in listed if not ignored.covers(entry)]
    left_out = [entry for entry in listed if ignored.covers(entry)]
    if classes is not None:
        kept = _in_order(root, kept, classes)
    names = tuple(entry.name for entry in kept)
    codes = tuple(entry.value for entry in kept if entry.value is not None)
    colors = tuple(entry.color for entry in kept if entry.color is not None)
    coding = MaskCoding.of(
        codes or None,
        colors or None,
        ignored_values=[
            *((IGNORE_INDEX,) if ignore is None else ignored.values),
            *(entry.value for entry in left_out if entry.value is not None),
        ],
        ignored_colors=[
            *ignored.colors,
            *(entry.color for entry in left_out if entry.color is not None),
        ],
    )
    shown_colors = colors or palette_colors(paths[0], codes) or class_colors(names)
    return _Choice(names, MaskInfo(codes or tuple(range(len(names))), shown_colors), coding, note)


def _from_file(root: Path) -> tuple[ListedClass, ...] | None:
    """The classes that a file in a folder lists; None without such a file.

    Those without values and colors get values by their positions.
    """
    found = [name for name in sub_folders(root)[1] if name.lower() in _LISTS]
    if len(found) > 1:
        raise DataError(
            f"{shown(root)} has {len(found)} lists of classes, {' and '.join(map(shown, found))}; "
            "keep one of them"
        )
    if not found:
        return None
    classes = read_class_list(root / found[0])
    if any(entry.value is not None or entry.color is not None for entry in classes):
        return classes
    return tuple(ListedClass(entry.name, value) for value, entry in enumerate(classes))


def _from_options(
    classes: tuple[str, ...] | None, values: tuple[int, ...] | None
) -> tuple[ListedClass, ...] | None:
    """The classes of the options ``classes`` and ``values``; None without them."""
    if classes is None:
        return None
    numbers = range(len(classes)) if values is None else values
    if len(numbers) != len(classes):
        raise DataError(
            f"data.options.values has {len(numbers)} numbers for {len(classes)} classes; give one "
            "for each"
        )
    listed = tuple(map(ListedClass, classes, numbers))
    check_class_list("data.options.classes", listed)
    return listed


def _from_masks(
    root: Path, paths: Sequence[Path], ignored: Sequence[int]
) -> tuple[tuple[ListedClass, ...], str]:
    """Every value in the masks as a class, and a line that says so."""
    found = find_values(paths)
    advice = "write the list of classes into classes.txt"
    if found.colored:
        number = "1 mask is" if found.colored == 1 else f"{found.colored:,} masks are"
        raise DataError(
            f"{shown(root)}: {number} in color, and there is no list of classes; {advice}, one a "
            "line, as NAME R G B"
        )
    values = [value for value in found.values if value not in ignored]
    if len(values) == 1 and len(found.values) == 2:
        raise DataError(
            f"{shown(root)}: masks have the values {values[0]} and {IGNORE_INDEX} only, and "
            f"{IGNORE_INDEX} is no class unless you say so; {advice}, as VALUE NAME"
        )
    if len(values) > IGNORE_INDEX:
        raise DataError(
            f"{shown(root)}: masks have {len(values):,} different values, more than the "
            f"{IGNORE_INDEX} classes that are possible; {advice}"
        )
    listed = tuple(ListedClass(f"class {value}", value) for value in values)
    few = ", ".join(map(str, values[:3])) + (", ..." if len(values) > 3 else "")
    note = (
        f"{shown(root)} has no list of classes: its {len(values)} classes are called by their "
        f"values ({few}); classes.txt can name them"
    )
    return listed, note


def _in_order(root: Path, listed: Sequence[ListedClass], names: Sequence[str]) -> list[ListedClass]:
    """The listed classes in the order of given names.

    Raises:
        DataError: the names are others.
    """
    by_name = {entry.name: entry for entry in listed}
    unknown = [name for name in by_name if name not in names]
    missing = [name for name in names if name not in by_name]
    if unknown:
        raise DataError(
            f"{shown(root)} lists classes that the model does not know: {first_few(unknown)}; "
            f"known: {first_few(names)}; data.options.ignore leaves classes out"
        )
    if missing:
        raise DataError(
            f"{shown(root)} does not list the classes {first_few(missing)}; add them to its list, "
            "even if no pixel has them"
        )
    return [by_name[name] for name in names]
