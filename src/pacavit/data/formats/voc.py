"""Pascal VOC's annotation files: the objects of one image as XML.

Format: M. Everingham et al.: "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from pacavit.errors import DataError
from pacavit.utils.files import read_bounded
from pacavit.utils.text import one_line, shown

__all__ = ["VocImage", "VocObject", "read_voc"]

_MAX_BYTES = 16 * 2**20
_MAX_NAME = 200


@dataclass(frozen=True)
class VocObject:
    """One object of an annotation file.

    Attributes:
        name: of its class.
        box: x1, y1, x2, y2 in pixels, from 0; None if numbers are missing.
        difficult: it counts in no score.
    """

    name: str
    box: tuple[float, float, float, float] | None
    difficult: bool


@dataclass(frozen=True)
class VocImage:
    """The content of an annotation file.

    Attributes:
        file_name: of the image, as the file states it; empty if it does not.
        size: (height, width); None if the file states none.
        objects: of the image.
    """

    file_name: str
    size: tuple[int, int] | None
    objects: tuple[VocObject, ...]


def read_voc(path: Path) -> VocImage:
    """Read an annotation file. Coordinates in it begin at 1 and include the last pixel.

    Entities are not expanded, and files with a document type are refused: they could expand to any
    size, or name other files.

    Raises:
        DataError: the file cannot be read, is no XML, has a document type, or is of another tool.
    """
    root = _parse(path)
    if root.tag != "annotation":
        raise DataError(
            f"{shown(path)} has the element <{root.tag[:_MAX_NAME]}>, where Pascal VOC has "
            "<annotation>; it is of another tool: export Pascal VOC's format"
        )
    return VocImage(
        (root.findtext("filename") or "").strip(),
        _size(root),
        tuple(map(_object, root.iterfind("object"))),
    )


def _parse(path: Path) -> Element:
    builder, parser, name = TreeBuilder(), expat.ParserCreate(), shown(path)

    def refuse(*_: object) -> None:
        raise DataError(
            f"{name} has a document type (DOCTYPE), which is not read; remove that line"
        )

    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(read_bounded(path, _MAX_BYTES), True)
        return builder.close()
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror or error}") from error
    except (expat.ExpatError, ValueError, LookupError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name} is not XML, or only a part of it: {one_line(error)}") from error


def _size(root: Element) -> tuple[int, int] | None:
    found = [_number(root, f"size/{side}") for side in ("height", "width")]
    height, width = (0 if side is None or side != side // 1 else int(side) for side in found)
    return (height, width) if height > 0 and width > 0 else None


def _object(element: Element) -> VocObject:
    sides = [_number(element, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    x1, y1, x2, y2 = sides
    box = None
    if x1 is not None and y1 is not None and x2 is not None and y2 is not None:
        box = (x1 - 1, y1 - 1, x2, y2)
    name = shown((element.findtext("name") or "").strip())[:_MAX_NAME]
    return VocObject(name, box, (element.findtext("difficult") or "").strip() == "1")


def _number(element: Element, path: str) -> float | None:
    """The number in a sub-element; None if it is missing, no number, or far too large."""
    try:
        value = float(element.findtext(path) or "")
    except ValueError:
        return None
    return value if abs(value) < 1e9 else None  # False for NaN, too
