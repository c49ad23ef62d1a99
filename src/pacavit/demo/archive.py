"""The explanations of an image as a zip file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Protocol
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

from pacavit.demo.models import AnyExplained
from pacavit.explain import Explanation
from pacavit.utils import files
from pacavit.utils.text import shown

__all__ = ["Writer", "write_zip"]

_LONGEST = 100  # bytes of a name; file systems allow 255, and suffixes are appended


class Writer(Protocol):
    """Writes explanations as a folder of pictures, JSON and a page."""

    def __call__(self, explanations: Iterable[Explanation], out: Path, *, title: str) -> object:
        """Write the folder ``out``, which must not exist."""


def write_zip(explained: Sequence[AnyExplained], folder: Path, write: Writer) -> Path:
    """Write the explanations of an image by one or several models, with the page, into a zip file.

    Args:
        explained: the same image, once per model.
        folder: in which the file gets a new folder of its own, so that it replaces no other.
        write: writes the folder that is zipped.

    Returns:
        The file, named after the image.

    Raises:
        PacavitError: it cannot be written.
    """
    name = f"{_stem(explained[0].explanation.path)}-explained.zip"
    with files.writing(name):
        file = Path(mkdtemp(prefix="zip-", dir=folder)) / name
        _write(explained, file, write)
    return file


def _write(explained: Sequence[AnyExplained], file: Path, write: Writer) -> None:
    named = [
        replace(one.explanation, path=_path(one, alone=len(explained) == 1)) for one in explained
    ]
    image = shown(explained[0].explanation.path.name)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / file.stem
        write(named, folder, title=f"Explanations of {image}")
        for numbers in folder.glob("*.json"):
            _make_relative(numbers)
        with ZipFile(file, "w") as archive:
            for path in sorted(folder.rglob("*")):
                # Pictures are compressed already.
                how = ZIP_STORED if path.suffix == ".png" else ZIP_DEFLATED
                archive.write(path, path.relative_to(folder.parent), how)


def _path(one: AnyExplained, *, alone: bool) -> Path:
    path, stem = one.explanation.path, _stem(one.explanation.path)
    if not alone:
        stem += f" by {_shortened(Path(one.model).name)}"
    return path.with_name(stem + path.suffix)


def _stem(path: Path) -> str:
    """The stem of a file's name, shortened."""
    return _shortened(path.stem)


def _shortened(text: str) -> str:
    return shown(text).replace("\\", "%").encode()[:_LONGEST].decode(errors="ignore")


def _make_relative(numbers: Path) -> None:
    """Make the folders in the JSON file relative to it, without the temporary path."""
    records = json.loads(numbers.read_text("utf-8"))
    for record in records:
        record["folder"] = Path(record["folder"]).name
    numbers.write_text(json.dumps(records, indent=2) + "\n", "utf-8")
