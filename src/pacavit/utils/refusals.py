"""What networks raise for arguments, images or weights that do not suit them."""

from __future__ import annotations

__all__ = ["REFUSALS"]

REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Raised, for example, for a width that heads do not divide, or a name that is no activation."""
