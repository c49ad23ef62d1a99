"""Parsers of untrusted JSON and TOML, with bounds on size, depth and integers."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from pacavit.utils.files import read_bounded

__all__ = ["MAX_BYTES", "MAX_DEPTH", "LimitError", "parse_json", "parse_toml", "read_json"]

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 32
_MAX_INTEGER = 2**63
# tomllib's time for a dotted key grows with the square of the number of its parts.
_LONG_KEY = re.compile(
    r"(?<![\w-])(?:(?:[\w-]++|\"[^\"\n]*+\"|'[^'\n]*+')[ \t]*+\.[ \t]*+){%d}" % MAX_DEPTH  # noqa: UP031
)


class LimitError(ValueError):
    """A text exceeds the bounds of this module on size, depth or integers."""


def parse_json(text: str | bytes, limit: int = MAX_BYTES) -> Any:
    """The value of a JSON text of at most ``limit`` characters.

    Raises:
        LimitError: the text or a value in it is beyond the bounds of this module.
        ValueError: it is not JSON.
    """
    if len(text) > limit:
        raise LimitError(f"it has more than {limit} characters")
    try:
        value = json.loads(text)
    except RecursionError:
        raise LimitError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:  # by int(), of more than 4300 digits
        raise LimitError("it holds an integer of more than 64 bits") from None
    _check_bounds(value)
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """The table of a TOML text.

    Raises:
        LimitError: the text or a value in it is beyond the bounds of this module.
        ValueError: it is not TOML.
    """
    if len(text) > MAX_BYTES:
        raise LimitError(f"it has more than {MAX_BYTES} characters")
    if _LONG_KEY.search(text):
        raise LimitError(f"it holds a key of more than {MAX_DEPTH} parts")
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise LimitError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:
        if "digits" not in str(error):  # a date such as 2024-13-41
            raise
        raise LimitError("it holds an integer of more than 64 bits") from None
    _check_bounds(table)
    return table


def read_json(path: Path, limit: int = MAX_BYTES) -> Any:
    """The value of a JSON file of at most ``limit`` bytes.

    Raises:
        OSError: the file is missing, not a regular file, too large, or cannot be read.
        ValueError: it is not JSON, or beyond the bounds of this module.
    """
    return parse_json(read_bounded(path, limit), limit)


def _check_bounds(value: Any) -> None:
    """Raise LimitError for what is nested too deeply or holds too large an integer."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner.extend(each.values())
            elif isinstance(each, list):
                inner.extend(each)
            elif isinstance(each, int) and abs(each) >= _MAX_INTEGER:
                raise LimitError("it holds an integer of more than 64 bits")
        if not inner:
            return
        level = inner
    raise LimitError(f"it is nested deeper than {MAX_DEPTH} levels")
