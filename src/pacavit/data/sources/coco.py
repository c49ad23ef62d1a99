"""Images with objects in the layout of COCO: one annotation file per split, boxes and masks.

Source: T.-Y. Lin et al.: "Microsoft COCO: Common Objects in Context", ECCV 2014;
https://cocodataset.org
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import NonNegativeInt, PositiveInt

from pacavit.data.base import DATASETS, Split, TargetKind
from pacavit.data.formats.coco import CocoFile, coco_table, read_coco
from pacavit.data.formats.faults import ObjectFaults
from pacavit.data.formats.image import MAX_PIXELS
from pacavit.data.formats.walk import is_image, is_system, sub_folders
from pacavit.data.sources.annotated import (
    AnnotatedSource,
    Found,
    check_ignored,
    match_classes,
    needed_splits,
)
from pacavit.data.splits import SPLIT_NAMES, split_of
from pacavit.errors import DataError
from pacavit.utils.text import first_few, shown

__all__ = ["Coco"]

_LAYOUT = (
    "annotations/instances_train2017.json with the images in train2017/, and the same for val2017 "
    "and test2017"
)
_ANNOTATIONS = ("annotations", "annotation", "labels")
_IMAGES = ("images", "imgs", "data")
_PREFERRED = "instances"
_OTHERS = frozenset({"captions", "keypoints", "panoptic", "stuff", "info", "unlabeled"})
_TRIED = 50  # images that tell the right folder


class _Files(NamedTuple):
    """The annotation file of a split, and the folders that may hold its images."""

    annotations: Path
    folders: tuple[Path, ...]


@DATASETS.register("coco")
class Coco(AnnotatedSource):
    """Objects with boxes, and perhaps masks, in COCO's format.

    ROOT/annotations/instances_train2017.json belongs to the images in ROOT/train2017, and so on for
    val2017 and test2017. Other common spellings are found too: any year or none, "valid" or
    "validation", annotation files beside the images, images in ROOT/images or in folders of splits
    there; or one annotation file for all, of which images are held out by their names.
    ``splits`` names the files of any other layout.

    Masks are polygons, run lengths or compressed run lengths. Data without masks are for detection
    only. Objects with ``iscrowd`` are regions with many objects: never learned from, and
    predictions inside them do not count.

    Objects that cannot be used (of unknown images or classes, boxes without an area or outside of
    the image, masks that do not decode) are left out and reported; if they are more than half of
    all, the data are refused. Boxes are cut at the borders of their images.

    Args:
        root: the folder.
        val_size: images held out for validation, if there is no annotation file for it; None:
            about 15 %.
        test_size: images held out for testing, likewise; None: about 15 % where no split has a
            file, none otherwise.
        splits: annotation file and folder of images of each split, relative to the root.
        classes: names in label order, such as those of a model to evaluate: categories are matched
            by name, and objects of others are refused; None: the categories of the training file,
            in the order of their ids.
        category_ids: of ``classes``, for those that a file does not list.
        ignore: names of classes whose objects are left out.
        max_pixels: images with more pixels are left out, like broken ones.
        mismatched: refuse or skip images whose files are missing, or have another size than the
            annotations state.
        evaluated: the only split that is needed, to evaluate a trained model; set by the engine.
        target: "boxes", or "instances" for masks too; set by the task.

    Raises:
        DataError: the layout is different, an annotation file is wrong, or there are no masks.
    """

    targets = ("boxes", "instances")

    def __init__(
        self,
        root: Path | None = None,
        *,
        val_size: int | None = None,
        test_size: NonNegativeInt | None = None,
        splits: dict[Split, tuple[str, str]] | None = None,
        classes: tuple[str, ...] | None = None,
        category_ids: tuple[int, ...] | None = None,
        ignore: tuple[str, ...] = (),
        max_pixels: PositiveInt = MAX_PIXELS,
        mismatched: Literal["refuse", "skip"] = "refuse",
        evaluated: Split | None = None,
        target: TargetKind = "boxes",
    ) -> None:
        if root is None:
            raise DataError(f"COCO is not downloaded; name its folder with --data ROOT: {_LAYOUT}")
        files = _find(root) if splits is None else _given(root, splits)
        needed = needed_splits(files, evaluated)
        read = {key: read_coco(files[key].annotations) for key in needed}
        if target == "instances":
            _check_masks(read)
        names, ids = _classes(root, read, classes, category_ids, ignore)
        tables, faults, notes = {}, {}, []
        for key, file in read.items():
            labels = {
                number: None if name in ignore else names.index(name)
                for number, name in file.categories.items()
                if name in {*names, *ignore}
            }
            folder, prefix = _image_folder(root, files[key], file)
            faults[key] = ObjectFaults()
            tables[key] = coco_table(
                file,
                folder,
                prefix,
                labels,
                faults[key],
                masks=target == "instances",
                max_pixels=max_pixels,
            )
            notes += _unlisted(folder, file, alone=len(needed) == 1)
        numbers = " + ".join(shown(key) or "all" for key in files)
        plural = "class" if len(names) == 1 else "classes"
        super().__init__(
            root,
            name="coco",
            found=Found(
                tables,
                faults,
                names,
                ids,
                f"COCO layout, {numbers}, {len(names)} {plural} ({_digest(files)})",
                notes,
            ),
            val_size=val_size,
            test_size=test_size,
            evaluated=evaluated,
            max_pixels=max_pixels,
            skip_mismatched=mismatched == "skip",
        )

    def _remedy(self, split: Split) -> str:
        return (
            f": there is no annotation file for {split}, and none of the other images are held out "
            f"for that; the layout is {_LAYOUT}; data.options.splits names other files"
        )


def _given(root: Path, splits: Mapping[Split, tuple[str, str]]) -> dict[str, _Files]:
    """The files of the option ``splits``; raises DataError if one does not exist."""
    if not splits:
        raise DataError("data.options.splits names no split; give train at least")
    found: dict[str, _Files] = {}
    for split in SPLIT_NAMES:
        if split not in splits:
            continue
        annotations, images = (root / path for path in splits[split])
        if not annotations.is_file():
            raise DataError(
                f"there is no annotation file {shown(annotations)} (data.options.splits)"
            )
        if not images.is_dir():
            raise DataError(f"there is no folder {shown(images)} of images (data.options.splits)")
        found[split] = _Files(annotations, (images,))
    return found


def _find(root: Path) -> dict[str, _Files]:
    """The files of each split, or of all images under the key "".

    Raises:
        DataError: no annotation file is found, or several for one split.
    """
    folders, names = sub_folders(root)
    apart = [root / name for name in folders if name.lower() in _ANNOTATIONS]
    found: dict[str, _Files] = {}
    for folder in [*apart, root]:
        for split, path in _annotation_files(folder).items():
            found.setdefault(split, _Files(path, _candidates(root, folders, split, path)))
        if found:
            break
    found = found or _beside_images(root, folders)
    if not found:
        there = [shown(name) for name in (*folders, *names) if not is_system(name)]
        raise DataError(
            f"{shown(root)} has no annotation files of COCO, only {first_few(there) or 'nothing'}; "
            f"the layout is {_LAYOUT}; data.options.splits names other files"
        )
    return {key: found[key] for key in ("", *SPLIT_NAMES) if key in found}


def _beside_images(root: Path, folders: Sequence[str]) -> dict[str, _Files]:
    """The annotation files in the folders of splits in a root, with the images beside them.

    Raises:
        DataError: there are several for one split.
    """
    found: dict[str, _Files] = {}
    for name in folders:
        split, folder = split_of(name), root / name
        paths = [] if split is None else _json_files(folder)
        if split is not None and paths:
            path = _only(paths, f"in {shown(folder)}")
            inside = [folder / sub for sub in sub_folders(folder)[0]]
            other = found.setdefault(split, _Files(path, (folder, *inside)))
            if other.annotations != path:
                raise _several(f"for {split}", [other.annotations, path])
    return found


def _annotation_files(folder: Path) -> dict[str, Path]:
    """The annotation files in a folder by split; one alone without a split under the key ""."""
    by_split: dict[str, list[Path]] = {}
    for path in _json_files(folder):
        words = re.findall(r"[a-z]+", path.stem.lower())
        splits = [split for word in words if (split := split_of(word)) is not None]
        by_split.setdefault(splits[0] if splits else "", []).append(path)
    if len(by_split) > 1:
        by_split.pop("", None)
    where = f"in {shown(folder)}"
    return {
        split: _only(paths, f"for {split} {where}" if split else where)
        for split, paths in by_split.items()
    }


def _json_files(folder: Path) -> list[Path]:
    """Annotation files in a folder, without those for other tasks, in the order of their names."""
    found = []
    for name in sub_folders(folder)[1]:
        words = set(re.findall(r"[a-z]+", name.lower()))
        other = words & _OTHERS and _PREFERRED not in words
        if name.lower().endswith(".json") and not is_system(name) and not other:
            found.append(folder / name)
    return found


def _only(paths: Sequence[Path], where: str) -> Path:
    preferred = [path for path in paths if _PREFERRED in path.stem.lower()] or paths
    if len(preferred) > 1:
        raise _several(where, preferred)
    return preferred[0]


def _several(where: str, paths: Sequence[Path]) -> DataError:
    names = first_few([shown(path.name) for path in paths])
    return DataError(
        f"there are {len(paths)} annotation files {where}: {names}; keep one, or name the one you "
        "mean, as data.options.splits={train=[ANNOTATIONS, IMAGES]}"
    )


def _candidates(
    root: Path, folders: Sequence[str], split: str, annotations: Path
) -> tuple[Path, ...]:
    """Folders that may hold the images of a split, the likeliest first."""
    bases = [root, *(root / name for name in folders if name.lower() in _IMAGES)]
    inside = [
        base / name
        for base in bases
        for name in sub_folders(base)[0]
        if split and split_of(name) == split
    ]
    year = "".join(re.findall(r"\d{4}", annotations.stem)[:1])
    inside.sort(key=lambda folder: year not in folder.name)
    deeper = [folder / name for folder in inside for name in _IMAGES if (folder / name).is_dir()]
    return (*inside, *deeper, *bases[1:], root, annotations.parent)


def _image_folder(root: Path, files: _Files, file: CocoFile) -> tuple[Path, str]:
    """The folder with the images, and its path relative to the root with a slash, if any.

    Raises:
        DataError: no folder has any of the first images.
    """
    names = [entry["file_name"] for entry in file.images[:_TRIED]]
    for folder in files.folders:
        if any((folder / name).is_file() for name in names):
            relative = os.path.relpath(folder, root)
            return folder, "" if relative == os.curdir else f"{relative}{os.sep}"
    where = [shown(folder) for folder in dict.fromkeys(files.folders)]
    raise DataError(
        f"the images that {shown(file.path)} lists are missing: there is no {shown(names[0])} in "
        f"{first_few(where)}; add the images, or name their folder with data.options.splits"
    )


def _check_masks(read: Mapping[str, CocoFile]) -> None:
    for file in read.values():
        if file.annotations and not file.has_masks:
            raise DataError(
                f'{shown(file.path)} has boxes and no masks ("segmentation" is empty); choose a '
                "recipe of detection, or add masks"
            )


def _classes(
    root: Path,
    read: Mapping[str, CocoFile],
    classes: tuple[str, ...] | None,
    category_ids: tuple[int, ...] | None,
    ignore: Sequence[str],
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of the classes, and the number of each in the files.

    Raises:
        DataError: files contradict each other, or have objects of classes that are not known.
    """
    listed: dict[int, str] = {}
    for file in read.values():
        for number, name in file.categories.items():
            other = listed.setdefault(number, name)
            if other != name:
                raise DataError(
                    f"{shown(file.path)} calls the category {number} {name!r}, and another split "
                    f"calls it {other!r}; use the same categories for all splits"
                )
    if len(set(listed.values())) < len(listed):
        repeated = [name for name in listed.values() if [*listed.values()].count(name) > 1]
        raise DataError(
            f"{shown(root)}: the splits have different ids for the category {repeated[0]!r}; use "
            "the same categories for all splits"
        )
    check_ignored(root, ignore, [*listed.values(), *(classes or ())])
    if classes is None:
        numbers = [number for number in sorted(listed) if listed[number] not in ignore]
        if not numbers:
            raise DataError(f"{shown(root)}: data.options.ignore leaves no class")
        return tuple(listed[number] for number in numbers), tuple(numbers)
    for file in read.values():
        used = [file.categories[each] for each in file.used_categories() & file.categories.keys()]
        match_classes(shown(file.path), sorted(used), ignore, classes)
    return classes, _numbers(classes, listed, category_ids)


def _numbers(
    classes: Sequence[str], listed: Mapping[int, str], known: Sequence[int] | None
) -> tuple[int, ...]:
    """The listed number of each class; of others the known one, or else the next free one."""
    by_name = {name: number for number, name in listed.items()}
    if known is not None and len(known) != len(classes):
        raise DataError(
            f"data.options.category_ids has {len(known)} numbers for {len(classes)} classes; give "
            "one for each"
        )
    taken = set(listed)
    numbers = []
    for position, name in enumerate(classes):
        number = by_name.get(name)
        if number is None:
            number = max(taken, default=0) + 1 if known is None else known[position]
            if number in taken:
                number = max(taken) + 1
            taken.add(number)
        numbers.append(number)
    return tuple(numbers)


def _unlisted(folder: Path, file: CocoFile, *, alone: bool) -> list[str]:
    """A line on images in a folder that the annotation file does not list.

    Args:
        folder: of the images.
        file: that lists images.
        alone: all images of the data are in the folder; else it may hold those of other splits.
    """
    names = {entry["file_name"] for entry in file.images}
    if not alone and split_of(folder.name) is None:
        return []
    others = [name for name in sub_folders(folder)[1] if is_image(name) and name not in names]
    others = [name for name in others if not is_system(name)]
    if not others:
        return []
    who = "image is" if len(others) == 1 else "images are"
    return [
        f"{len(others):,} {who} in {shown(folder)} and not in {shown(file.path.name)}, and not "
        f"used: {first_few([shown(name) for name in others])}"
    ]


def _digest(files: Mapping[str, _Files]) -> str:
    """Eight hexadecimal digits that change with the annotation files."""
    digest = hashlib.blake2b(digest_size=4)
    for key, each in files.items():
        digest.update(key.encode())
        try:
            with each.annotations.open("rb") as file:
                digest.update(hashlib.file_digest(file, hashlib.blake2b).digest())
        except OSError as error:
            raise DataError(
                f"cannot read {shown(each.annotations)}: {error.strerror or error}"
            ) from error
    return digest.hexdigest()
