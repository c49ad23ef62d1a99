"""COCO's annotation files: images, objects and categories in one JSON file.

Format: https://cocodataset.org/#format-data
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacavit.data.formats.faults import ObjectFaults
from pacavit.data.formats.image import read_size
from pacavit.data.formats.object_table import ObjectTable, TableBuilder
from pacavit.data.formats.rle import Rle
from pacavit.data.formats.segments import SegmentError, read_segment
from pacavit.errors import DataError
from pacavit.utils.files import is_safe, read_bounded
from pacavit.utils.parsing import parse_json
from pacavit.utils.progress import progress
from pacavit.utils.text import first_few, one_line, shown

__all__ = ["CocoFile", "coco_table", "read_coco"]

_MAX_BYTES = 4 * 2**30
_MAX_CATEGORIES = 20_000
_MAX_NAME = 200
_LISTS = ("images", "annotations", "categories")
_OTHER_TOOLS = (  # keys by which files of other tools are recognized
    ({"shapes", "imagePath"}, "a file of LabelMe for one image"),
    ({"_via_img_metadata"}, "a project of the VGG Image Annotator"),
    ({"features"}, "a GeoJSON file"),
    ({"boxes", "labels"}, "a file of predictions or of another tool"),
)
_EXPORT = "export the annotations in COCO's format, as one JSON file per split"


@dataclass(frozen=True, eq=False)
class CocoFile:
    """The lists of an annotation file, of which images and categories have been checked.

    Attributes:
        path: of the file.
        categories: names by number, in the order of the file.
        images: entries with a unique "id" and a unique, safe "file_name".
        annotations: objects of any content.
    """

    path: Path
    categories: Mapping[int, str]
    images: Sequence[Mapping[str, Any]]
    annotations: Sequence[Any]

    def used_categories(self) -> set[Any]:
        """The numbers of the categories that occur, also of those that are not listed."""
        return {
            each["category_id"]
            for each in self.annotations
            if isinstance(each, dict) and type(each.get("category_id")) is int
        }

    @property
    def has_masks(self) -> bool:
        """Whether an object has something like a mask."""
        return any(isinstance(each, dict) and each.get("segmentation") for each in self.annotations)


def read_coco(path: Path) -> CocoFile:
    """Read an annotation file, and check its images and categories.

    Raises:
        DataError: the file cannot be read, is no JSON, of another tool, or its images or categories
            contradict each other; one line.
    """
    name = shown(path)
    try:
        content = parse_json(read_bounded(path, _MAX_BYTES), _MAX_BYTES)
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise DataError(f"{name} is not a text in UTF-8; {_EXPORT}") from None
    except ValueError as error:
        raise DataError(
            f"{name} is not JSON, or only a part of it: {one_line(error)}; fetch or write it again"
        ) from error
    _check_kind(name, content)
    return CocoFile(
        path,
        _categories(name, content["categories"]),
        _images(name, content["images"]),
        content["annotations"],
    )


def _check_kind(name: str, content: Any) -> None:
    """Raise DataError unless a file has the lists of COCO's format."""
    if isinstance(content, list):
        first = content[0] if content and isinstance(content[0], dict) else {}
        what = "a list of predictions" if "score" in first else "a list"
        raise DataError(
            f"{name} is {what}; COCO's annotations are an object with the lists "
            f"{', '.join(_LISTS)}; {_EXPORT}"
        )
    if not isinstance(content, dict):
        raise DataError(f"{name} is a JSON {type(content).__name__}, no annotations; {_EXPORT}")
    for keys, tool in _OTHER_TOOLS:
        if keys <= content.keys():
            raise DataError(f"{name} is {tool}; {_EXPORT}")
    missing = [key for key in _LISTS if not isinstance(content.get(key), list)]
    if missing:
        found = [shown(key)[:_MAX_NAME] for key in content]
        raise DataError(
            f"{name} has no list {' and no list '.join(missing)}, it has "
            f"{first_few(found) or 'nothing'}; {_EXPORT}"
        )


def _categories(name: str, entries: Sequence[Any]) -> dict[int, str]:
    """Names of categories by number.

    Raises:
        DataError: there is none, or too many; one has no number or name, or that of another.
    """
    if not 0 < len(entries) <= _MAX_CATEGORIES:
        raise DataError(
            f"{name} has {len(entries):,} categories; 1 to {_MAX_CATEGORIES:,} are possible"
        )
    found: dict[int, str] = {}
    names: set[str] = set()
    for position, entry in enumerate(entries):
        number, text = (_field(entry, key) for key in ("id", "name"))
        if type(number) is not int or not isinstance(text, str) or not text.strip():
            raise DataError(
                f'{name}: category {position} of the list has no number "id" and text "name"'
            )
        label = shown(text.strip())[:_MAX_NAME]
        if number in found:
            raise DataError(
                f"{name} has two categories with the id {number}, {found[number]!r} and {label!r}; "
                "give each its own"
            )
        if label in names:
            raise DataError(
                f"{name} has two categories with the name {label!r}; rename one, or give their "
                "objects one id"
            )
        found[number] = label
        names.add(label)
    return found


def _images(name: str, entries: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
    """The entries of images.

    Raises:
        DataError: there is none; or one has no number, no safe file name, or that of another.
    """
    if not entries:
        raise DataError(f"{name} lists no images")
    files: dict[str, int] = {}
    numbers: dict[int, str] = {}
    for position, entry in enumerate(entries):
        number, file = (_field(entry, key) for key in ("id", "file_name"))
        if type(number) is not int or not isinstance(file, str):
            raise DataError(
                f'{name}: image {position} of the list has no number "id" and text "file_name"'
            )
        if not is_safe(file):
            raise DataError(
                f"{name}: the file_name {shown(file)[:_MAX_NAME]!r} of image {number} leads out of "
                "the folder of images, or is empty; write names relative to that folder"
            )
        if number in numbers:
            raise DataError(
                f"{name} has two images with the id {number}, {numbers[number]} and {shown(file)}; "
                "give each its own"
            )
        if file in files:
            raise DataError(
                f"{name} lists {shown(file)} twice, as the images {files[file]} and {number}; give "
                "all of its objects one image_id, and list it once"
            )
        numbers[number], files[file] = shown(file), number
    return entries


def _field(entry: Any, key: str) -> Any:
    return entry.get(key) if isinstance(entry, dict) else None


def coco_table(
    file: CocoFile,
    folder: Path,
    prefix: str,
    labels: Mapping[int, int | None],
    faults: ObjectFaults,
    *,
    masks: bool,
    max_pixels: int,
) -> ObjectTable:
    """The images of an annotation file with their objects.

    Args:
        file: from ``read_coco``.
        folder: of the images.
        prefix: of their paths in the table.
        labels: classes by number of the category; None for those whose objects are left out.
        faults: receives what is wrong with objects.
        masks: objects need masks.
        max_pixels: largest image.

    Raises:
        DataError: the stated size of an image is wrong or too large; or more than half of the
            objects are wrong.
    """
    builder = TableBuilder(faults, masks=masks)
    places: dict[int, tuple[int, tuple[int, int]]] = {}
    for entry in file.images:
        size = _image_size(entry, file.path, folder, max_pixels)
        if size is not None:
            path = f"{prefix}{entry['file_name']}"
            places[entry["id"]] = builder.add_image(path, entry["id"], size), size
    listed = {entry["id"]: entry["file_name"] for entry in file.images}
    seen: set[int] = set()
    what = f"reading {shown(file.path.name)}"
    for position, entry in enumerate(progress(file.annotations, what, len(file.annotations))):
        image, category, number = (_field(entry, key) for key in ("image_id", "category_id", "id"))
        name = f"object {number}" if type(number) is int else f"object #{position + 1}"
        if type(image) is int and type(category) is int and labels.get(category, 0) is None:
            continue
        faults.total += 1
        if type(image) is not int or type(category) is not int:
            faults.add("malformed", f"{name}: no number image_id or category_id")
        elif image not in listed:
            faults.add("image", f"{name}: image_id {image}")
        elif category not in labels:
            faults.add("category", f"{name} of {shown(listed[image])}: category_id {category}")
        elif image in places:  # others cannot be read, and are reported
            if type(number) is int:
                if number in seen:
                    faults.add("same_id", name)
                seen.add(number)
            label = labels[category]
            assert label is not None
            _add_object(builder, entry, name, *places[image], label)
    faults.check(shown(file.path))
    return builder.build()


def _add_object(
    builder: TableBuilder,
    entry: Mapping[str, Any],
    name: str,
    image: int,
    size: tuple[int, int],
    label: int,
) -> None:
    """Add one annotation of a known image and class."""
    box, area = entry.get("bbox"), entry.get("area")
    corners = None
    if box is not None:
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            builder.faults.add("malformed", f"{name}: its bbox is no list of four numbers")
            return
        x, y, width, height = box
        corners = (x, y, x + width, y + height)
    stated = float(area) if isinstance(area, int | float) and 0 < area < math.inf else None
    mask: Rle | SegmentError | None = None
    if builder.masks or corners is None or stated is None:
        try:
            mask = read_segment(entry.get("segmentation"), size)
        except SegmentError as error:
            mask = error
    builder.add_object(
        image,
        label,
        corners,
        name=name,
        crowd=entry.get("iscrowd") in (1, True),
        area=stated,
        mask=mask,
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _image_size(
    entry: Mapping[str, Any], path: Path, folder: Path, max_pixels: int
) -> tuple[int, int] | None:
    """(height, width) of an image: as stated, else that of its file; None if both are missing.

    Raises:
        DataError: it is no size, or too large.
    """
    stated = entry.get("height"), entry.get("width")
    if stated == (None, None):
        return read_size(folder / entry["file_name"], upright=True)
    height, width = stated
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise DataError(
            f"{shown(path)}: {shown(entry['file_name'])} has the width {_short(width)} and the "
            f"height {_short(height)}; they are whole numbers of pixels above 0"
        )
    if height * width > max_pixels:
        raise DataError(
            f"{shown(path)}: {shown(entry['file_name'])} has {width} x {height} pixels, more than "
            f"the limit of {max_pixels / 1e6:g} million (data.options.max_pixels); correct its size"
        )
    return height, width


def _short(value: Any) -> str:
    return re.sub(r"\s+", " ", repr(value))[:_MAX_NAME]
