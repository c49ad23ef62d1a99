"""Images with objects in the layout of Pascal VOC: one XML file per image, boxes only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt

from pacavit.data.base import DATASETS, Split
from pacavit.data.formats.faults import ObjectFaults
from pacavit.data.formats.files import Listing, fingerprint
from pacavit.data.formats.image import MAX_PIXELS, read_size
from pacavit.data.formats.masks import read_all
from pacavit.data.formats.object_table import ObjectTable, TableBuilder
from pacavit.data.formats.voc import VocImage, read_voc
from pacavit.data.formats.walk import is_image, is_system, sub_folders
from pacavit.data.sources.annotated import (
    AnnotatedSource,
    Found,
    check_ignored,
    match_classes,
    needed_splits,
)
from pacavit.data.sources.paired import splits_in
from pacavit.data.splits import SPLIT_NAMES
from pacavit.errors import DataError
from pacavit.utils.files import is_safe, read_bounded
from pacavit.utils.text import first_few, shown

__all__ = ["Voc"]

_ANNOTATIONS = ("annotations", "annotation", "xml", "labels")
_IMAGES = ("jpegimages", "images", "imgs")
_LISTS = Path("ImageSets", "Main")
_LISTS_OF: dict[Split, tuple[str, ...]] = {
    "train": ("train.txt", "trainval.txt"),
    "val": ("val.txt",),
    "test": ("test.txt",),
}
_MAX_BYTES = 64 * 2**20
_LAYOUT = (
    "Annotations/*.xml and JPEGImages/, perhaps with ImageSets/Main/train.txt and val.txt; or "
    "train/, val/ and test/ with XML files beside the images"
)


class _Entry(NamedTuple):
    """The annotation file of an image, and the images that it may be for, by stem."""

    annotation: Path
    images: Mapping[str, Path]
    folder: Path


@DATASETS.register("voc")
class Voc(AnnotatedSource):
    """Objects with boxes in Pascal VOC's format.

    ROOT/Annotations has an XML file for each image in ROOT/JPEGImages. ROOT/ImageSets/Main lists
    the images of train.txt (or trainval.txt), val.txt and test.txt; without lists, images are held
    out by their names. Or ROOT/train, ROOT/val and ROOT/test hold XML files beside the images. ROOT
    may also be the folder above, such as VOCdevkit with VOC2012 in it.

    Objects that are marked difficult are never learned from, and count in no score, as crowd
    regions. Objects that cannot be used are left out and reported; if they are more than half of
    all, the data are refused. Boxes are cut at the borders of their images.

    Args:
        root: the folder.
        val_size: images held out for validation, if there is no list or folder of them; None: about
            15 %.
        test_size: images held out for testing, likewise; None: about 15 % where no split has a list
            or folder, none otherwise.
        classes: names in label order, such as those of a model to evaluate: objects of other
            classes are refused; None: all that occur, sorted.
        ignore: names of classes whose objects are left out.
        max_pixels: images with more pixels are left out, like broken ones.
        mismatched: refuse or skip images whose files or annotations are missing, or which have
            another size than the annotations state.
        evaluated: the only split that is needed, to evaluate a trained model; set by the engine.

    Raises:
        DataError: the layout is different, or an annotation file is wrong.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        val_size: int | None = None,
        test_size: NonNegativeInt | None = None,
        classes: tuple[str, ...] | None = None,
        ignore: tuple[str, ...] = (),
        max_pixels: PositiveInt = MAX_PIXELS,
        mismatched: Literal["refuse", "skip"] = "refuse",
        evaluated: Split | None = None,
    ) -> None:
        if root is None:
            raise DataError(f"VOC is not downloaded; name its folder with --data ROOT: {_LAYOUT}")
        notes: list[str] = []
        entries = _find(_inner(root), notes, skip=mismatched == "skip")
        read = {
            key: list(
                read_all(
                    read_voc,
                    [entry.annotation for entry in entries[key]],
                    f"reading {key or 'all'} annotations",
                )
            )
            for key in needed_splits(entries, evaluated)
        }
        used = {each.name for images in read.values() for image in images for each in image.objects}
        if classes is not None:
            match_classes(shown(root), sorted(used), ignore, classes)
        check_ignored(root, ignore, [*used, *(classes or ())])
        names = tuple(sorted(used - {*ignore})) if classes is None else classes
        if not names:
            raise DataError(f"{shown(root)}: no image has an object of a class that is not ignored")
        faults = {key: ObjectFaults() for key in read}
        tables = {
            key: _table(root, entries[key], images, names, ignore, faults[key], max_pixels, notes)
            for key, images in read.items()
        }
        listings = {
            key: Listing(
                np.array([os.fsencode(str(entry.annotation)) for entry in each]),
                torch.zeros(len(each), dtype=torch.int64),
            )
            for key, each in entries.items()
        }
        numbers = " + ".join(f"{len(each):,}" for each in listings.values())
        plural = "class" if len(names) == 1 else "classes"
        super().__init__(
            root,
            name="voc",
            found=Found(
                tables,
                faults,
                names,
                tuple(range(1, len(names) + 1)),
                f"VOC layout, {numbers} images in {len(names)} {plural} "
                f"({fingerprint(listings, beside=names)})",
                notes,
            ),
            val_size=val_size,
            test_size=test_size,
            evaluated=evaluated,
            max_pixels=max_pixels,
            skip_mismatched=mismatched == "skip",
        )

    def _remedy(self, split: Split) -> str:
        return f": there is no list or folder of them; the layout is {_LAYOUT}"


def _inner(root: Path) -> Path:
    """The folder with the annotations: the root, or the only folder with a folder of them in it."""
    for _ in range(2):
        folders = [name for name in sub_folders(root)[0] if not is_system(name)]
        if any(name.lower() in _ANNOTATIONS for name in folders):
            return root
        inner = [name for name in folders if name.lower().startswith("voc")]
        if len(inner) > 1:
            raise DataError(
                f"{shown(root)} has {first_few([shown(name) for name in inner])}; name one of them"
            )
        if not inner:
            break
        root = root / inner[0]
    return root


def _find(root: Path, notes: list[str], *, skip: bool) -> dict[str, list[_Entry]]:
    """The annotation files of each split, or of all images under the key "".

    Args:
        root: of the data.
        notes: receives lines on files without a partner.
        skip: leave out listed images without annotations.

    Raises:
        DataError: the layout is different, or listed images have no annotations.
    """
    annotations, images = _named(root, _ANNOTATIONS), _named(root, _IMAGES)
    if annotations is None:
        found: dict[str, list[_Entry]] = {}
        for split, folder in splits_in(root).items():
            inside = _named(folder, _ANNOTATIONS) or folder
            entries = _entries(inside, _named(folder, _IMAGES) or folder, notes)
            if entries:
                found[split] = [*entries.values()]
        if not found:
            raise DataError(
                f"{shown(root)} has no annotation files (.xml); VOC's layout is {_LAYOUT}"
            )
        return found
    entries = _entries(annotations, images or annotations, notes)
    if not entries:
        raise DataError(
            f"{shown(annotations)} has no annotation files (.xml); VOC's layout is {_LAYOUT}"
        )
    lists = _lists(root)
    if not lists:
        return {"": [*entries.values()]}
    found, missing = {}, list[str]()
    for split, stems in lists.items():
        listed = [entries[stem] for stem in stems if stem in entries]
        without = [stem for stem in stems if stem not in entries]
        if listed:
            found[split] = listed
            missing += [f"{shown(stem)} ({split})" for stem in without]
        elif split != "test":  # VOC publishes no annotations of some test images
            missing += [f"{shown(stem)} ({split})" for stem in without]
    if missing:
        text = (
            f"{len(missing):,} listed {'image has' if len(missing) == 1 else 'images have'} no "
            f"annotation file: {first_few(missing)}"
        )
        if not skip:
            raise DataError(
                f"{shown(root)}: {text}; add what is missing, or leave them out with "
                "data.options.mismatched=skip"
            )
        notes.append(f"left out: {text}")
    _check_disjoint(root, lists)
    return found


def _named(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in sub_folders(folder)[0] if name.lower() in names), None)


def _entries(annotations: Path, images: Path, notes: list[str]) -> dict[str, _Entry]:
    """Annotation files in a folder by stem, sorted; images without one are noted."""
    files = {
        Path(name).stem: images / name
        for name in sub_folders(images)[1]
        if is_image(name) and not is_system(name)
    }
    found = {
        Path(name).stem: _Entry(annotations / name, files, images)
        for name in sub_folders(annotations)[1]
        if name.lower().endswith(".xml") and not is_system(name)
    }
    without = [shown(path.name) for stem, path in files.items() if stem not in found]
    if without and found:
        who = "image has" if len(without) == 1 else "images have"
        notes.append(f"{len(without):,} {who} no annotation file: {first_few(without)}; not used")
    return found


def _lists(root: Path) -> dict[Split, list[str]]:
    """The stems of the images of each split, as ImageSets/Main lists them; empty without lists."""
    found: dict[Split, list[str]] = {}
    for split, names in _LISTS_OF.items():
        path = next(
            (root / _LISTS / name for name in names if (root / _LISTS / name).is_file()), None
        )
        if path is None:
            continue
        try:
            text = read_bounded(path, _MAX_BYTES).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {shown(path)} as a list of images: {error}") from error
        stems = list(dict.fromkeys(line.split()[0] for line in text.splitlines() if line.strip()))
        unsafe = [stem for stem in stems if not is_safe(stem)]
        if unsafe:
            raise DataError(f"{shown(path)} lists {shown(unsafe[0])!r}, no name of an image")
        found[split] = stems
    return found


def _check_disjoint(root: Path, lists: Mapping[Split, Sequence[str]]) -> None:
    """Raise DataError if an image is listed for two splits."""
    owners: dict[str, Split] = {}
    for split in SPLIT_NAMES:
        for stem in lists.get(split, ()):
            other = owners.setdefault(stem, split)
            if other != split:
                raise DataError(
                    f"{shown(root / _LISTS)} lists {shown(stem)} for {other} and for {split}; "
                    "remove it from one of them"
                )


def _table(
    root: Path,
    entries: Sequence[_Entry],
    images: Sequence[VocImage],
    names: Sequence[str],
    ignore: Sequence[str],
    faults: ObjectFaults,
    max_pixels: int,
    notes: list[str],
) -> ObjectTable:
    """The images of a split with their objects; those without any size are left out and noted."""
    builder, labels = TableBuilder(faults, masks=False), {name: n for n, name in enumerate(names)}
    unknown = []
    for number, (entry, image) in enumerate(zip(entries, images, strict=True), 1):
        path = entry.images.get(entry.annotation.stem)
        if path is None:
            name = image.file_name if is_safe(image.file_name) else f"{entry.annotation.stem}.jpg"
            path = entry.folder / name
        size = image.size or read_size(path, upright=True)
        if size is None or size[0] * size[1] > max_pixels:
            unknown.append(shown(path))
            continue
        file = os.path.relpath(path, root)
        place = builder.add_image(file, number, size)
        for position, each in enumerate(image.objects, 1):
            if each.name in ignore:
                continue
            faults.total += 1
            example = f"object {position}"
            if each.name not in labels:
                faults.add("category", f"{example} of {shown(file)}: {each.name!r}")
            elif each.box is None:
                faults.add("malformed", f"{example} of {shown(file)}: no bndbox of numbers")
            else:
                builder.add_object(
                    place, labels[each.name], each.box, name=example, crowd=each.difficult
                )
    faults.check(shown(root))
    if unknown:
        who = "image has" if len(unknown) == 1 else "images have"
        notes.append(
            f"left out: {len(unknown):,} {who} no readable file and no size, or too many pixels: "
            f"{first_few(unknown)}"
        )
    return builder.build()
