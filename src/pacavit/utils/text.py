"""Texts for messages of one line."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["first_few", "one_line"]

_FEW = 3


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
