"""Errors a user can cause. The command line prints them as one line and exits with code 2."""

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
    """Base of all errors that a user can cause and mend: what, where, what to do, in one line.

    Attributes:
        shared: all processes of a run raise it, so it need not be sent to them.
    """

    shared: bool = False


class UnknownNameError(PacavitError, LookupError):
    """A name that is not registered; the message suggests the nearest ones.

    Args:
        kind: what the name should name, for example ``"clustering"``.
        name: the unknown name.
        known: the names that exist.
        where: what stands behind the name, for example ``"of clustering 'conv'"``.
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
    """A file that is there but that the system failed to read; its content may well be good."""


class CheckpointError(PacavitError, ValueError):
    """Weights, checkpoints or run folders that are missing, broken or do not fit."""


class Interrupted(PacavitError):  # noqa: N818 (it stops a run, but nothing went wrong)
    """A run that was asked to stop (Ctrl-C, SIGTERM) and has saved itself; says how to go on."""


class ReportedElsewhere(PacavitError):  # noqa: N818 (what it repeats is the error)
    """An error of a run on several processes that another process reports."""

    shared = True
