"""Checks of the folders to which results are written."""

from __future__ import annotations

from pathlib import Path

from pacavit.errors import PacavitError
from pacavit.utils.text import shown

__all__ = ["check_folder", "check_no_file"]


def check_folder(out: Path, *, mark: str, what: str, overwrite: bool) -> None:
    """Refuse a folder that is not empty, or with ``overwrite`` one without older results.

    Args:
        out: the folder; it need not exist.
        mark: a file that identifies older results.
        what: name of the results, for messages.
        overwrite: older results may be replaced.

    Raises:
        PacavitError: the folder is refused, or it is a file.
    """
    if out.exists() and not out.is_dir():
        raise PacavitError(f"{shown(out)} is a file; choose another folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / mark).is_file():
        raise PacavitError(
            f"{shown(out)} holds other files than {what} and is not changed; choose another folder"
        )
    if not overwrite:
        raise PacavitError(f"{shown(out)} holds {what}; give --overwrite or another folder")


def check_no_file(folder: Path) -> None:
    """Raise PacavitError if a folder for results is a file."""
    if folder.exists() and not folder.is_dir():
        raise PacavitError(
            f"cannot save results in {shown(folder)}: it is a file; choose another folder"
        )
