"""Console output of the verbs beside their results."""

from __future__ import annotations

from rich.console import Console

__all__ = ["print_line"]


def print_line(text: str, *, stderr: bool = False) -> None:
    """Print one line without wrapping, markup or highlighting."""
    Console(stderr=stderr).print(text, highlight=False, markup=False, soft_wrap=True)
