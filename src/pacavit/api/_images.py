"""The images that verbs are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pacavit.api._console import print_line
from pacavit.data.formats.walk import expand_folders

__all__ = ["find_images"]


def find_images(images: str | Path | Sequence[str | Path], *, progress: bool) -> list[Path]:
    """The image files among files and folders; with ``progress``, logs what is skipped."""
    paths, skipped = expand_folders([images] if isinstance(images, str | Path) else images)
    note = skipped.describe()
    if progress and note is not None:
        print_line(note, stderr=True)
    return paths
