"""Checks of the options of attentions."""

from __future__ import annotations

from pacavit.errors import RecipeError

__all__ = ["check_count"]


def check_count(name: str, value: int, least: int = 1, most: int | None = None) -> int:
    """The value of an option that is a whole number of at least ``least``, at most ``most``.

    Raises:
        RecipeError: it is not.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"in {least}..{most}"
        raise RecipeError(f"{name} must be a whole number {limits}, not {value!r}")
    return value
