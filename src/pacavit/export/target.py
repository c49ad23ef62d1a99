"""Where an exported file goes: the format by its name, and files that are complete or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pacavit.errors import PacavitError
from pacavit.export.writers import WRITERS
from pacavit.utils import files
from pacavit.utils.text import shown

__all__ = ["Target", "plan_target", "publish", "temporary_folder"]


@dataclass(frozen=True)
class Target:
    """A file or folder to write.

    Attributes:
        path: of it.
        format: registered name.
        is_folder: it is a folder.
    """

    path: Path
    format: str
    is_folder: bool


def plan_target(out: Path, to: str | None, *, overwrite: bool) -> Target:
    """The format of a path, if it may be written.

    Args:
        out: file or folder to write.
        to: name of the format; None is that of the suffix.
        overwrite: replace an older file, or a folder of the same format.

    Raises:
        UnknownNameError: there is no such format.
        PacavitError: the name does not fit the format, or something is there.
    """
    suffixes = {WRITERS.get(name).suffix: name for name in WRITERS if WRITERS.get(name).suffix}
    own = suffixes.get(out.suffix.lower())
    if to is None and own is None:
        known = ", ".join(f"{suffix} ({name})" for suffix, name in suffixes.items())
        folders = " or ".join(name for name in WRITERS if WRITERS.get(name).folder)
        raise PacavitError(
            f"the name {shown(out.name)} does not tell the format; end it with {known}, or give "
            f"--to {folders} for a folder"
        )
    name = WRITERS.canonical(to) if to is not None else own
    assert name is not None
    writer = WRITERS.get(name)
    is_folder = own is None
    if (own is not None and own != name) or (is_folder and writer.folder is None):
        what = f"end it with {writer.suffix}" if writer.suffix else "name a folder"
        raise PacavitError(f"{shown(out.name)} is no name for the format {name}; {what}")
    if not out.name.strip(". "):
        raise PacavitError(f"{shown(out)} is no name for a new file; name the file to write")
    _check_free(out, writer.folder if is_folder else None, overwrite=overwrite)
    return Target(out, name, is_folder)


def _check_free(out: Path, mark: str | None, *, overwrite: bool) -> None:
    """Raise PacavitError unless a path may be written; ``mark`` is a file of older folders."""
    parent = next((each for each in out.absolute().parents if each.exists()), None)
    if parent is not None and not parent.is_dir():
        raise PacavitError(f"{shown(parent)} is a file, so {shown(out)} cannot be in it")
    if not out.exists():
        return
    if mark is None and out.is_dir():
        raise PacavitError(f"{shown(out)} is a folder; name a file")
    if mark is not None and not out.is_dir():
        raise PacavitError(f"{shown(out)} is a file; choose another name")
    if mark is not None and any(out.iterdir()) and not (out / mark).is_file():
        raise PacavitError(
            f"{shown(out)} holds other files than an exported model and is not changed; choose "
            "another folder"
        )
    if not overwrite and (mark is None or any(out.iterdir())):
        raise PacavitError(f"{shown(out)} exists; give --overwrite or another name")


@contextmanager
def temporary_folder(out: Path) -> Iterator[Path]:
    """A folder beside a path, in which it is written first; it is removed in any case.

    Raises:
        CheckpointError: the disk is full, or the folder cannot be written.
    """
    folder = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with files.writing(shown(out)):
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, target: Target) -> None:
    """Move what was written in a temporary folder to its place."""
    made, out = folder / target.path.name, target.path
    for file in folder.rglob("*"):
        if file.is_file():
            _sync(file)
    if target.is_folder:
        if out.exists():
            out.rename(folder / "replaced")
        made.rename(out)
    else:
        # The file that names the others goes last.
        for file in sorted(folder.iterdir(), key=lambda file: file == made):
            file.replace(out.with_name(file.name))
    files.sync_folder(out.absolute().parent)


def _sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
