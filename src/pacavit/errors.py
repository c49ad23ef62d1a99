"""Errors that a user can cause. The command line prints one line and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "DataError",
    "Interrupted",
    "PacavitError",
    "ReadError",
    "RecipeError",
    "ReportedElsewhere",
    "UnknownNameError",
]


class PacavitError(Exception):
    """Base class of errors that a user can cause and fix.

    The message is one line: what is wrong, where, and what to do.

    Attributes:
        shared: every process of the run raises it, so it need not be sent to the others.
    """

    shared: bool = False


class UnknownNameError(PacavitError, LookupError):
    """A name that is not registered; the message suggests the nearest ones.

    Args:
        kind: what the name should name, for example ``"clustering"``.
        name: the unknown name.
        known: the names that exist.
        where: follows the name in the message, for example ``"of clustering 'conv'"``.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "") -> None:
        self.kind, self.name, self.known = kind, name, tuple(known)
        near = difflib.get_close_matches(name, self.known, n=3)
        if near:
            hint = "did you mean " + " or ".join(repr(match) for match in near) + "?"
        else:
            hint = "known: " + (", ".join(self.known) or "none")
        subject = f"unknown {kind} {name!r} {where}".rstrip()
        super().__init__(f"{subject}; {hint}")


class RecipeError(PacavitError, ValueError):
    """A recipe, an override or an option that does not fit."""


class DataError(PacavitError, ValueError):
    """Images, labels or data folders that are missing, broken or unsafe."""


class ReadError(DataError):
    """The system failed to read an existing file, whose content may be intact."""


class CheckpointError(PacavitError, ValueError):
    """Weights, checkpoints or run folders that are missing, broken or do not fit."""


class Interrupted(PacavitError):  # noqa: N818 (it stops a run, but nothing went wrong)
    """Work was stopped by Ctrl-C or SIGTERM after it was saved; the message says how to resume."""


class ReportedElsewhere(PacavitError):  # noqa: N818 (what it repeats is the error)
    """Raised in a process of a run whose error another process reports."""

    shared = True
