"""What the verbs say beside their results."""

from __future__ import annotations

from rich.console import Console

__all__ = ["print_line"]


def print_line(text: str, *, stderr: bool = False) -> None:
    """One line on the console, as it is."""
    Console(stderr=stderr).print(text, highlight=False, markup=False, soft_wrap=True)
