"""Texts for messages of one line."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["first_few", "one_line"]

_FEW = 3


def one_line(error: BaseException, *, kind: bool = False) -> str:
    """What an error says, without line breaks; its class where it says nothing.

    Args:
        error: from a library, whose text may have several lines.
        kind: put the name of its class in front.
    """
    name, text = type(error).__name__, " ".join(str(error).split())
    if not text:
        return name
    return f"{name}: {text}" if kind else text


def first_few(items: Sequence[str]) -> str:
    """The first three of several texts, and how many more there are."""
    more = f" (and {len(items) - _FEW} more)" if len(items) > _FEW else ""
    return f"{'; '.join(items[:_FEW])}{more}"
