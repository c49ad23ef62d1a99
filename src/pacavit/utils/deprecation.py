"""Old names of functions, accepted with a warning for one release."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

__all__ = ["renamed"]

P = ParamSpec("P")
R = TypeVar("R")


def renamed(function: Callable[P, R], old: str) -> Callable[P, R]:
    """A function under an old name: it warns (FutureWarning) and calls the function.

    Args:
        function: under its new name.
        old: the old name.
    """
    message = (
        f"{old} is now called {function.__name__}; the old name will be removed in the next release"
    )

    @wraps(function)
    def alias(*args: P.args, **kwargs: P.kwargs) -> R:
        warnings.warn(message, FutureWarning, stacklevel=2)
        return function(*args, **kwargs)

    alias.__name__ = alias.__qualname__ = old
    vars(alias)["__deprecated__"] = message  # as PEP 702 has it; documentation leaves it out
    return alias
