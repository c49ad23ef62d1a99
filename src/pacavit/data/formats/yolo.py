"""YOLO's label files: a line per object, with its class and its box or outline as fractions.

Format: https://docs.ultralytics.com/datasets/detect and /segment
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pacavit.errors import DataError
from pacavit.utils.files import read_bounded
from pacavit.utils.text import one_line, shown

__all__ = ["YoloData", "YoloObject", "read_labels", "read_names", "read_yaml"]

_MAX_BYTES = 2**20
_MAX_CLASSES = 20_000
_MAX_NAME = 200
_BOX = 5  # numbers of a line with a box


class YoloObject(NamedTuple):
    """A line of a label file.

    Attributes:
        label: the class, or None if the line is no object.
        box: x1, y1, x2, y2 as fractions of width and height.
        polygon: x1, y1, x2, y2, ... likewise; None for a box.
    """

    label: int | None
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    polygon: tuple[float, ...] | None = None


class YoloData(NamedTuple):
    """The description of a data set.

    Attributes:
        names: of the classes, by number.
        paths: folder or list of images by split, as the file states it.
    """

    names: tuple[str, ...]
    paths: dict[str, str]


def read_yaml(path: Path) -> YoloData:
    """Read the file ``data.yaml`` of a data set.

    Raises:
        DataError: it cannot be read, is no YAML, or lists no names of classes.
    """
    name, text = shown(path), _read_text(path)
    try:
        # Aliases could make a small text a huge value.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise DataError(f"{name} has YAML aliases (*), which are not read; write them out")
        content = yaml.safe_load(text)
    except DataError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{name} is not YAML: {one_line(error)[:_MAX_NAME]}") from error
    names = _names(name, content.get("names") if isinstance(content, dict) else None)
    assert isinstance(content, dict)
    number = content.get("nc", len(names))
    if number != len(names):
        raise DataError(f"{name} has nc = {str(number)[:20]} and {len(names)} names; correct one")
    keys = ("path", "train", "val", "test")
    return YoloData(names, {key: content[key] for key in keys if isinstance(content.get(key), str)})


def read_names(path: Path) -> tuple[str, ...]:
    """The names of classes in a text with one a line, such as ``classes.txt`` or ``obj.names``.

    Raises:
        DataError: it cannot be read, or is wrong.
    """
    lines = _read_text(path).splitlines()
    return _names(shown(path), [line.strip() for line in lines if line.strip()])


def _names(where: str, names: Any) -> tuple[str, ...]:
    """A list of names, or names by the numbers from 0 on."""
    if isinstance(names, dict):
        if list(names) != list(range(len(names))):
            raise DataError(f"{where}: the numbers of names have to be 0, 1, 2 and so on")
        names = [*names.values()]
    if not isinstance(names, list) or not 0 < len(names) <= _MAX_CLASSES:
        raise DataError(f'{where} has no list "names" with the names of classes')
    if not all(isinstance(each, str | int) and str(each).strip() for each in names):
        raise DataError(f"{where}: a name of a class is no text; put it into quotes")
    texts = tuple(shown(str(each).strip())[:_MAX_NAME] for each in names)
    if len(set(texts)) < len(texts):
        repeated = Counter(texts).most_common(1)[0][0]
        raise DataError(f"{where} has the name {repeated!r} more than once; rename one")
    return texts


def read_labels(path: Path) -> list[YoloObject]:
    """The objects of a label file, one for each line that is not empty.

    Raises:
        DataError: the file cannot be read, or is no text.
    """
    return [_object(line) for line in _read_text(path).splitlines() if line.strip()]


def _read_text(path: Path) -> str:
    try:
        return read_bounded(path, _MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{shown(path)} is not a text in UTF-8") from None
    except OSError as error:
        raise DataError(f"cannot read {shown(path)}: {error.strerror or error}") from error


def _object(line: str) -> YoloObject:
    try:
        first, *numbers = map(float, line.split())
    except ValueError:
        return YoloObject(None)
    if not first.is_integer() or not all(map(math.isfinite, numbers)):
        return YoloObject(None)
    label = int(first)
    if len(numbers) == _BOX - 1:
        x, y, width, height = numbers
        half = width / 2, height / 2
        return YoloObject(label, (x - half[0], y - half[1], x + half[0], y + half[1]))
    if len(numbers) < 6 or len(numbers) % 2:
        return YoloObject(None)
    across, down = numbers[::2], numbers[1::2]
    box = (min(across), min(down), max(across), max(down))
    return YoloObject(label, box, tuple(numbers))
