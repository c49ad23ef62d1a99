"""Checks of the options of detectors."""

from __future__ import annotations

from collections.abc import Sequence

from pacavit.errors import RecipeError

__all__ = ["check_fractions", "check_pair", "check_positive"]


def check_positive(**options: float | Sequence[float]) -> None:
    """Raise RecipeError unless all are above 0; of a sequence, each of its numbers."""
    for name, value in options.items():
        numbers = value if isinstance(value, Sequence) else (value,)
        if not numbers or not all(number > 0 for number in numbers):
            raise RecipeError(f"{name} of a detector must be above 0, not {value}")


def check_pair(**options: Sequence[int]) -> None:
    """Raise RecipeError unless all are two positive numbers, of training and of evaluation."""
    check_positive(**options)
    for name, value in options.items():
        if len(value) != 2:
            raise RecipeError(
                f"{name} of a detector must be two numbers, for training and for evaluation, "
                f"not {len(value)}"
            )


def check_fractions(**options: float) -> None:
    """Raise RecipeError unless all are in 0..1."""
    for name, value in options.items():
        if not 0 <= value <= 1:
            raise RecipeError(f"{name} of a detector must be from 0 to 1, not {value}")
