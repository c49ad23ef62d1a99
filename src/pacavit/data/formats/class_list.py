"""Lists of classes: names, their values in masks and their colors, in text, CSV or JSON files.

One class a line: ``NAME``, ``VALUE NAME``, ``NAME R G B``, ``#RRGGBB NAME``, or
``VALUE NAME R G B``, with spaces, tabs, commas, colons or semicolons between them; all lines alike.
Tables with a header (``value,name,r,g,b``; ``Idx`` and ``Name`` as of ADE20K) and JSON
(``["NAME"]``, ``{"NAME": [R, G, B]}``, ``{"NAME": VALUE}``, ``{"VALUE": "NAME"}``, or a list of
objects with ``name``, ``value`` and ``color``) mean the same.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacavit.data.base import IGNORE_INDEX, Color
from pacavit.errors import DataError
from pacavit.utils.files import read_bounded
from pacavit.utils.text import first_few, shown

__all__ = [
    "MAX_VALUE",
    "ListedClass",
    "check_class_list",
    "color_code",
    "color_name",
    "parse_color",
    "read_class_list",
]

MAX_VALUE = 65535
"""Largest value of a class in a mask, which may have 16 bits."""

_MAX_BYTES = 2**20
_COLUMNS = {
    "name": ("name", "class", "label", "category"),
    "value": ("value", "id", "idx", "index"),
    "color": ("color", "colour", "hex"),
    "red": ("r", "red"),
    "green": ("g", "green"),
    "blue": ("b", "blue"),
}
_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_BETWEEN = re.compile(r"[\s,;:]+")
_LINE = re.compile(
    r"(?:(?P<value>\d+)[\s,;:]+)?"
    r"(?:(?P<before>#[0-9a-fA-F]{6}|\d+(?:[\s,;:]+\d+){2})[\s,;:]+)?"
    r"(?P<name>(?!\d+(?:[\s,;:]|$))[^\s,;:].*?)"
    r"(?:[\s,;:]+(?P<after>#[0-9a-fA-F]{6}|\d+(?:[\s,;:]+\d+){2}))?"
    r"[\s,;:]*",
    re.ASCII,
)
_MAX_LINE, _SHOWN = 1000, 60
_MAX_DIGITS = 9


@dataclass(frozen=True)
class ListedClass:
    """One class of a list.

    Attributes:
        name: of the class.
        value: of its pixels in masks; None if the list has none.
        color: of its pixels in color-coded masks, or for legends; None if the list has none.
    """

    name: str
    value: int | None = None
    color: Color | None = None


def read_class_list(path: Path) -> tuple[ListedClass, ...]:
    """The classes of a file, in its order.

    Raises:
        DataError: the file cannot be read, has no classes, a line is not understood, only some
            classes have values or colors, or two have the same name, value or color.
    """
    name = shown(path)
    try:
        text = read_bounded(path, _MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{name} is not a text in UTF-8") from None
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror or error}") from error
    if path.suffix.lower() == ".json":
        classes = tuple(_from_json(name, text))
    else:
        classes = tuple(_from_table(name, text) or _from_lines(name, text))
    check_class_list(name, classes)
    return classes


def check_class_list(where: str, classes: Sequence[ListedClass]) -> None:
    """Raise DataError unless the classes of a list agree with each other.

    Args:
        where: the list, in the error message.
        classes: in their order.
    """
    if not classes:
        raise DataError(f"{where} has no classes; write one a line")
    if not all(entry.name.strip() for entry in classes):
        raise DataError(f"{where} has a class without a name; name it, or remove it")
    for what in ("name", "value", "color"):
        found = [getattr(entry, what) for entry in classes]
        missing = [entry.name for entry in classes if getattr(entry, what) is None]
        if 0 < len(missing) < len(found):
            raise DataError(
                f"{where}: some classes have a {what}, and others have none: {first_few(missing)}; "
                "write all lines alike"
            )
        repeated = [entry for entry in classes if found.count(getattr(entry, what)) > 1]
        if repeated and not missing:
            value = getattr(repeated[0], what)
            text = color_name(color_code(value)) if what == "color" else repr(value)
            names = [
                entry.name for entry in repeated if getattr(entry, what) == value and what != "name"
            ]
            who = f" ({first_few(names)})" if names else ""
            raise DataError(f"{where} has the {what} {text} more than once{who}; keep one")
    if len(classes) > IGNORE_INDEX:
        raise DataError(
            f"{where} has {len(classes):,} classes; masks can have {IGNORE_INDEX} at most"
        )


def color_code(color: Color) -> int:
    """A color as one number, 0xRRGGBB."""
    red, green, blue = color
    return red << 16 | green << 8 | blue


def color_name(code: int) -> str:
    """A color of ``color_code`` as text: "#rrggbb"."""
    return f"#{code:06x}"


def parse_color(text: str) -> Color | None:
    """The color of "#rrggbb"; None if it is none."""
    if _HEX.fullmatch(text) is None:
        return None
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def _from_lines(name: str, text: str) -> Iterator[ListedClass]:
    """The classes of a plain text; lines that begin with "# " or "//" are comments."""
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line == "#" or line.startswith(("# ", "//")):
            continue
        yield _parse_line(f"{name}, line {number}", line)


def _parse_line(where: str, line: str) -> ListedClass:
    found = _LINE.fullmatch(line) if len(line) <= _MAX_LINE else None
    if found is None:
        raise DataError(
            f"{where}: {line[:_SHOWN]!r} is not understood; write NAME, VALUE NAME, NAME R G B or "
            "#RRGGBB NAME"
        )
    value, color = found["value"], found["before"] or found["after"]
    return ListedClass(
        found["name"],
        None if value is None else _value(where, value),
        None if color is None else _any_color(where, color),
    )


def _from_table(name: str, text: str) -> list[ListedClass]:
    """The classes of a table whose first line names its columns; empty if it does not."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return []
    delimiter = next((sign for sign in "\t;" if sign in lines[0]), ",")
    header = [cell.strip().lower() for cell in lines[0].split(delimiter)]
    places = {
        column: next((header.index(word) for word in words if word in header), None)
        for column, words in _COLUMNS.items()
    }
    if places["name"] is None or len(header) < 2:
        return []
    classes = []
    for number, cells in enumerate(csv.reader(lines[1:], delimiter=delimiter), 2):
        where = f"{name}, line {number}"
        if len(cells) < len(header):
            raise DataError(f"{where}: {len(cells)} cells instead of {len(header)}")
        found = {
            column: cells[place].strip() for column, place in places.items() if place is not None
        }
        color = None
        if "color" in found:
            color = _any_color(where, found["color"])
        elif {"red", "green", "blue"} <= found.keys():
            color = _color(where, [found["red"], found["green"], found["blue"]])
        value = _value(where, found["value"]) if "value" in found else None
        classes.append(ListedClass(found["name"], value, color))
    return classes


def _from_json(name: str, text: str) -> Iterator[ListedClass]:
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{name} is not JSON: {error}") from None
    if isinstance(data, dict):
        for key, value in data.items():
            where = f"{name}, {key!r}"
            if isinstance(value, str) and key.isascii() and key.isdigit():
                yield ListedClass(value, _value(where, key))
            elif isinstance(value, int) and not isinstance(value, bool):
                yield ListedClass(key, _value(where, value))
            else:
                yield ListedClass(key, None, _any_color(where, value))
        return
    if not isinstance(data, list):
        raise DataError(f"{name} holds no list of classes, but {type(data).__name__}")
    for number, entry in enumerate(data, 1):
        where = f"{name}, class {number}"
        if isinstance(entry, str):
            yield ListedClass(entry)
            continue
        if not isinstance(entry, dict):
            raise DataError(f"{where} is neither a name nor an object with a name")
        lower = {str(key).lower(): value for key, value in entry.items()}
        found = {
            column: next((lower[word] for word in words if word in lower), None)
            for column, words in _COLUMNS.items()
        }
        if not isinstance(found["name"], str):
            raise DataError(f"{where} has no name")
        value, color = found["value"], found["color"]
        yield ListedClass(
            found["name"],
            None if value is None else _value(where, value),
            None if color is None else _any_color(where, color),
        )


def _value(where: str, value: Any) -> int:
    number = _number(value)
    if not 0 <= number <= MAX_VALUE:
        raise DataError(f"{where}: the value {str(value)!r} is not a number of 0 to {MAX_VALUE}")
    return number


def _any_color(where: str, value: Any) -> Color:
    """A color as "#rrggbb", as three numbers in a text, or as a list of them."""
    if isinstance(value, str):
        color = parse_color(value.strip())
        if color is not None:
            return color
        value = [word for word in _BETWEEN.split(value.strip(" ()[]")) if word]
    if not isinstance(value, list):
        raise DataError(f"{where}: {value!r} is no color; write [R, G, B] or '#rrggbb'")
    return _color(where, value)


def _color(where: str, words: Sequence[Any]) -> Color:
    numbers = [_number(word) for word in words]
    if len(numbers) != 3 or not all(0 <= number <= 255 for number in numbers):
        text = " ".join(map(str, words))
        raise DataError(f"{where}: {text!r} is no color; write three numbers of 0 to 255")
    return numbers[0], numbers[1], numbers[2]


def _number(value: Any) -> int:
    """A whole number of at least 0, as text or number; -1 if it is none."""
    text = str(value)
    if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS:
        return int(text)
    return -1
