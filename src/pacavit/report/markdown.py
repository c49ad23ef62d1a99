"""Pieces of Markdown files."""

from __future__ import annotations

from collections.abc import Sequence

from pacavit.utils.command import Command

__all__ = ["code", "shell", "table"]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with one heading per column, without a line break at the end."""
    lines = [_row(header), "|---" * len(header) + "|", *map(_row, rows)]
    return "\n".join(lines)


def shell(command: Command) -> str:
    """A command in a block of code."""
    return code("sh", str(command))


def code(language: str, *lines: str) -> str:
    """Lines in a block of code."""
    return "\n".join((f"```{language}", *lines, "```"))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
