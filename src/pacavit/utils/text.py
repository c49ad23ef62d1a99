"""Texts for messages of one line."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence

__all__ = ["escape_formulas", "first_few", "one_line", "shown"]

_FEW = 3
_UNSHOWN = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control characters, surrogates, line separators


def shown(path: str | os.PathLike[str]) -> str:
    r"""A file name or path as UTF-8 text on one line, for people and records.

    Names on disk are bytes. Bytes that are not UTF-8, as in archives from old systems, and control
    characters are escaped: the single byte E9 becomes the four characters ``\xe9``. All other names
    are unchanged. Files are opened by the path itself, not by this text.
    """
    text = os.fspath(path)
    if text.isascii() and text.isprintable():
        return text
    try:
        # Python keeps bytes that are not UTF-8 as lone surrogates.
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # other surrogates, which Windows allows in names
        text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _UNSHOWN
        else character
        for character in text
    )


def one_line(error: BaseException, *, kind: bool = False) -> str:
    """The message of an error without line breaks, or its class name if it has none.

    Args:
        error: its message may have several lines.
        kind: prepend the class name.
    """
    name, text = type(error).__name__, " ".join(str(error).split())
    if not text:
        return name
    return f"{name}: {text}" if kind else text


def first_few(items: Sequence[str]) -> str:
    """The first three texts, and the number of the others."""
    more = f" (and {len(items) - _FEW} more)" if len(items) > _FEW else ""
    return f"{'; '.join(items[:_FEW])}{more}"


def escape_formulas(text: str) -> str:
    """Escape characters that matplotlib would read as formulas."""
    return text.replace("$", r"\$")
