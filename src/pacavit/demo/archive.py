"""Everything that was found about an image, as one zip file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol
from zipfile import ZIP_DEFLATED, ZipFile

from pacavit.demo.explaining import Explained
from pacavit.explain import ImageExplanation

__all__ = ["Writer", "write_zip"]


class Writer(Protocol):
    """What writes explanations as a folder of pictures, numbers and a page."""

    def __call__(
        self, explanations: Iterable[ImageExplanation], out: Path, *, title: str
    ) -> object:
        """Write the folder ``out``, which does not exist."""


def write_zip(explained: Sequence[Explained], file: Path, write: Writer) -> Path:
    """Write the explanations of an image by one or several models, the offline page with them.

    Args:
        explained: the same image, once a model.
        file: to write; replaced if it exists.
        write: writes the folder that is zipped.
    """
    named = [
        replace(one.explanation, path=_path(one, alone=len(explained) == 1)) for one in explained
    ]
    image = explained[0].explanation.path.name
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / file.stem
        write(named, folder, title=f"What was looked at in {image}")
        for numbers in folder.glob("*.json"):
            _make_relative(numbers)
        with ZipFile(file, "w", ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, path.relative_to(folder.parent))
    return file


def _path(one: Explained, *, alone: bool) -> Path:
    path = one.explanation.path
    return path if alone else path.with_name(f"{path.stem} by {Path(one.model).name}{path.suffix}")


def _make_relative(numbers: Path) -> None:
    """Name folders as seen from the numbers; the temporary one means nothing to anybody."""
    records = json.loads(numbers.read_text("utf-8"))
    for record in records:
        record["folder"] = Path(record["folder"]).name
    numbers.write_text(json.dumps(records, indent=2) + "\n", "utf-8")
