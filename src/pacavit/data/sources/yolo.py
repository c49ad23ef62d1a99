"""Images with objects in the layout of YOLO: one text per image, with boxes or outlines."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt

from pacavit.data.base import DATASETS, Split, TargetKind
from pacavit.data.formats.faults import ObjectFaults
from pacavit.data.formats.files import Listing, fingerprint
from pacavit.data.formats.image import MAX_PIXELS, read_size
from pacavit.data.formats.masks import read_all
from pacavit.data.formats.object_table import ObjectTable, TableBuilder
from pacavit.data.formats.rle import Rle
from pacavit.data.formats.segments import SegmentError, from_polygons
from pacavit.data.formats.walk import Skipped, is_system, sub_folders, walk_folders
from pacavit.data.formats.yolo import YoloData, YoloObject, read_labels, read_names, read_yaml
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
from pacavit.utils.files import is_safe
from pacavit.utils.text import first_few, shown

__all__ = ["Yolo"]

_NAMES = ("classes.txt", "obj.names", "names.txt", "labels.txt", "classes.names")
_IMAGES, _LABELS = "images", "labels"
_LAYOUT = (
    "images/train/ with labels/train/, or train/images/ with train/labels/, the same for val and "
    "test, and data.yaml or classes.txt with the names of classes"
)


class _Folders(NamedTuple):
    """The folders of images and of label files of a split."""

    images: Path
    labels: Path


@DATASETS.register("yolo")
class Yolo(AnnotatedSource):
    """Objects with boxes, and perhaps outlines, in YOLO's format.

    ROOT/images/train/1.jpg has its objects in ROOT/labels/train/1.txt, or ROOT/train/images/1.jpg
    in ROOT/train/labels/1.txt; the same for val and test; without folders of splits, images are
    held out by their names. A line of a label file is ``CLASS X Y WIDTH HEIGHT``, of the center of
    a box, or ``CLASS X1 Y1 X2 Y2 ...``, an outline; all as fractions of the image. An image without
    a label file shows no object. ROOT/data.yaml lists the ``names`` of classes, or ROOT/classes.txt
    does, one a line.

    Objects that cannot be used are left out and reported; if they are more than half of all, the
    data are refused. Boxes are cut at the borders of their images.

    Args:
        root: the folder.
        val_size: images held out for validation, if there is no folder of them; None: about 15 %.
        test_size: images held out for testing, likewise; None: about 15 % without folders of
            splits, none otherwise.
        classes: names in label order, such as those of a model to evaluate: classes of the file are
            matched by name, and objects of others are refused; None: those of the file.
        ignore: names of classes whose objects are left out.
        max_pixels: images with more pixels are left out, like broken ones.
        evaluated: the only split that is needed, to evaluate a trained model; set by the engine.
        target: "boxes", or "instances" for masks too; set by the task.

    Raises:
        DataError: the layout is different, the names of classes are missing, or no image has a
            label file.
    """

    targets = ("boxes", "instances")
    refuses_duplicates = True

    def __init__(
        self,
        root: Path | None = None,
        *,
        val_size: int | None = None,
        test_size: NonNegativeInt | None = None,
        classes: tuple[str, ...] | None = None,
        ignore: tuple[str, ...] = (),
        max_pixels: PositiveInt = MAX_PIXELS,
        evaluated: Split | None = None,
        target: TargetKind = "boxes",
    ) -> None:
        if root is None:
            raise DataError(f"a folder of images and labels is needed: --data ROOT with {_LAYOUT}")
        data = _description(root)
        folders, skipped = _find(root, data.paths), Skipped()
        images = {key: _images(root, each, skipped) for key, each in folders.items()}
        read = {
            key: _read(root, folders[key], images[key], key)
            for key in needed_splits(folders, evaluated)
        }
        check_ignored(root, ignore, [*data.names, *(classes or ())])
        if classes is not None:
            labels = {each.label for objects, _ in read.values() for one in objects for each in one}
            used = [name for label, name in enumerate(data.names) if label in labels]
            match_classes(shown(root), used, ignore, classes)
        names = tuple(name for name in data.names if name not in ignore)
        names = names if classes is None else classes
        if not names:
            raise DataError(f"{shown(root)}: data.options.ignore leaves no class")
        notes = [line for _, lines in read.values() for line in lines]
        faults = {key: ObjectFaults() for key in read}
        labels_of = [
            None if name in ignore else names.index(name) if name in names else -1
            for name in data.names
        ]
        tables = {
            key: _table(
                root,
                images[key],
                objects,
                labels_of,
                faults[key],
                masks=target == "instances",
                max_pixels=max_pixels,
                notes=notes,
            )
            for key, (objects, _) in read.items()
        }
        numbers = " + ".join(f"{len(each):,}" for each in images.values())
        plural = "class" if len(names) == 1 else "classes"
        super().__init__(
            root,
            name="yolo",
            found=Found(
                tables,
                faults,
                names,
                tuple(range(len(names))),
                f"YOLO layout, {numbers} images in {len(names)} {plural} "
                f"({fingerprint(images, beside=names)})",
                [*filter(None, [skipped.describe(root)]), *notes],
            ),
            val_size=val_size,
            test_size=test_size,
            evaluated=evaluated,
            max_pixels=max_pixels,
            skip_mismatched=False,
        )

    def _remedy(self, split: Split) -> str:
        return f": there is no folder of them; the layout is {_LAYOUT}"


def _description(root: Path) -> YoloData:
    """The names of classes, and the folders of images that ``data.yaml`` names.

    Raises:
        DataError: no file, or more than one, lists the names.
    """
    files = [name for name in sub_folders(root)[1] if not is_system(name)]
    tables = [name for name in files if name.lower().endswith((".yaml", ".yml"))]
    tables = [name for name in tables if name.lower() in ("data.yaml", "data.yml")] or tables
    lists = [name for name in files if name.lower() in _NAMES]
    found = tables or lists
    if len(found) > 1:
        raise DataError(
            f"{shown(root)} has {len(found)} lists of classes, {first_few(found)}; keep one of them"
        )
    if not found:
        raise DataError(
            f"{shown(root)} has no data.yaml or classes.txt with the names of classes; the layout "
            f"is {_LAYOUT}"
        )
    return read_yaml(root / found[0]) if tables else YoloData(read_names(root / found[0]), {})


def _find(root: Path, paths: Mapping[str, str]) -> dict[str, _Folders]:
    """Folders of images and labels by split, or of all images under the key "".

    Args:
        root: of the data.
        paths: of ``data.yaml``. Those that do not exist in the root are passed over: many files
            name folders on the machine that wrote them.

    Raises:
        DataError: the layout is different.
    """
    inside = {name.lower(): root / name for name in sub_folders(root)[0]}
    found: dict[str, _Folders] = {}
    for split in SPLIT_NAMES:
        for base in ("", paths.get("path", "")):
            path = os.path.normpath(os.path.join(base, paths.get(split, "")))  # noqa: PTH118
            if split in paths and is_safe(path) and (root / path).is_dir():
                found.setdefault(split, _Folders(root / path, _labels_of(root / path)))
    images, labels = inside.get(_IMAGES), inside.get(_LABELS)
    if not found and images is not None and labels is not None:
        found = {
            split: _Folders(folder, labels / folder.name)
            for split, folder in splits_in(images).items()
        } or {"": _Folders(images, labels)}
    if not found:
        for split, folder in splits_in(root).items():
            own = folder / _IMAGES if (folder / _IMAGES).is_dir() else folder
            found[split] = _Folders(own, _labels_of(own))
    if not found:
        raise DataError(f"{shown(root)} has no folders images and labels; the layout is {_LAYOUT}")
    return found


def _labels_of(images: Path) -> Path:
    """The folder of labels of a folder of images: "images" in its path replaced, or the same."""
    parts = list(images.parts)
    for position in range(len(parts) - 1, -1, -1):
        if parts[position].lower() == _IMAGES:
            folder = Path(*parts[:position], _LABELS, *parts[position + 1 :])
            return folder if folder.is_dir() else images
    return images


def _images(root: Path, folders: _Folders, skipped: Skipped) -> Listing:
    """The images of a split, sorted; raises DataError if there is none."""
    own = Skipped()
    files = sorted(os.fsencode(path) for _, path in walk_folders(root, [folders.images], own))
    if not files:
        raise DataError(
            f"no images in {shown(folders.images)}, whose names end in .png, .jpg and so on"
        )
    if folders.images != folders.labels:
        skipped.update(own)
    return Listing(np.array(files), torch.zeros(len(files), dtype=torch.int64))


def _read(
    root: Path, folders: _Folders, images: Listing, key: str
) -> tuple[list[list[YoloObject]], list[str]]:
    """The objects of each image, and lines on files without a partner.

    Raises:
        DataError: no image has a label file.
    """
    paths = []
    for file in images.files.tolist():
        inside = os.path.relpath(root / os.fsdecode(file), folders.images)
        paths.append((folders.labels / inside).with_suffix(".txt"))
    there = [path.is_file() for path in paths]
    if not any(there):
        raise DataError(
            f"none of the {len(paths):,} images in {shown(folders.images)} has a label file, for "
            f"example {shown(paths[0])}; the layout is {_LAYOUT}"
        )
    objects = list(read_all(_read_if_there, paths, f"reading {key or 'all'} labels"))
    names = {path.name for path in paths}
    others = [
        shown(name)
        for name in sub_folders(folders.labels)[1]
        if name.endswith(".txt") and name not in names and name.lower() not in _NAMES
    ]
    if not others:
        return objects, []
    of_split = f"{key} " if key else ""
    who = "label file has" if len(others) == 1 else "label files have"
    return objects, [f"{len(others):,} {of_split}{who} no image: {first_few(others)}"]


def _read_if_there(path: Path) -> list[YoloObject]:
    return read_labels(path) if path.is_file() else []


def _table(
    root: Path,
    images: Listing,
    objects: Sequence[Sequence[YoloObject]],
    labels: Sequence[int | None],
    faults: ObjectFaults,
    *,
    masks: bool,
    max_pixels: int,
    notes: list[str],
) -> ObjectTable:
    """The images of a split with their objects; broken ones are left out and noted."""
    builder = TableBuilder(faults, masks=masks)
    files = [os.fsdecode(file) for file in images.files.tolist()]
    sizes = read_all(partial(_size, root), files, "reading sizes of images")
    broken = []
    for number, (file, size, own) in enumerate(zip(files, sizes, objects, strict=True), 1):
        if size is None or size[0] * size[1] > max_pixels:
            broken.append(shown(file))
            continue
        image = builder.add_image(file, number, size)
        for line, each in enumerate(own, 1):
            name = f"line {line}"
            if each.label is not None and 0 <= each.label < len(labels):
                label = labels[each.label]
                if label is None:
                    continue
                height, width = size
                x1, y1, x2, y2 = each.box
                builder.add_object(
                    image,
                    label,
                    (x1 * width, y1 * height, x2 * width, y2 * height),
                    name=name,
                    mask=_mask(each, size) if masks else None,
                )
            else:
                kind = "malformed" if each.label is None else "category"
                detail = "" if each.label is None else f": class {each.label}"
                faults.add(kind, f"{name} of {shown(file)}{detail}")
            faults.total += 1
    faults.check(shown(root))
    if broken:
        who = "image is" if len(broken) == 1 else "images are"
        notes.append(f"left out: {len(broken):,} {who} broken or too large: {first_few(broken)}")
    return builder.build()


def _size(root: Path, file: str) -> tuple[int, int] | None:
    return read_size(root / file, upright=True)


def _mask(each: YoloObject, size: tuple[int, int]) -> Rle | SegmentError:
    """The pixels of an outline, or why there are none."""
    if each.polygon is None:
        return SegmentError("no_mask")
    scale = (size[1], size[0])
    try:
        return from_polygons(
            [[value * scale[place % 2] for place, value in enumerate(each.polygon)]], size
        )
    except SegmentError as error:
        return error
