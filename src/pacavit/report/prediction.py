"""Predictions of any task as files, as JSON and on the console."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console
from torch import Tensor

from pacavit.errors import PacavitError
from pacavit.tasks import TaskPrediction
from pacavit.utils import files
from pacavit.utils.text import shown

__all__ = [
    "PictureFolder",
    "PredictionWriter",
    "predictions_json",
    "print_predictions",
]
_TABLES = (".csv", ".json", ".parquet")


class PredictionWriter(Protocol):
    """Writes predictions as they are made. Made before the first, so that it can refuse a place."""

    def add(self, prediction: TaskPrediction, image: Callable[[], Tensor]) -> None:
        """Take the prediction for an image.

        Args:
            prediction: of the image, or its error.
            image: decodes the image, (3, H, W) uint8; called only if its pixels are needed.
        """

    def finish(self) -> None:
        """Write what is not written yet.

        Raises:
            CheckpointError: a file cannot be written.
        """


class PictureFolder:
    """A folder that predictions of images are written into, several files each.

    Args:
        out: folder, created if needed.
        overwrite: write into a folder that is not empty.

    Raises:
        PacavitError: a file, or a folder that is not empty, is in the way.
    """

    def __init__(self, out: Path, *, overwrite: bool) -> None:
        if out.exists() and not out.is_dir():
            raise PacavitError(
                f"{shown(out)} is a file; pictures are written into a folder: choose another"
            )
        if out.suffix.lower() in _TABLES and not out.exists():
            raise PacavitError(
                f"{shown(out)}: pictures are written into a folder; give its name, or FILE.jsonl "
                "for records without pictures"
            )
        if out.is_dir() and any(out.iterdir()) and not overwrite:
            raise PacavitError(
                f"{shown(out)} is not empty; give --overwrite to write into it, or another folder"
            )
        self.out = out
        self._used: Counter[str] = Counter()

    def name(self, path: Path) -> str:
        """The stem of an image's name, with a number if an earlier image has the same."""
        stem = path.stem
        self._used[stem] += 1
        count = self._used[stem]
        return stem if count == 1 else f"{stem}-{count}"

    def write(self, contents: Mapping[str, bytes]) -> None:
        """Write files; older ones are replaced.

        Raises:
            CheckpointError: a file cannot be written.
        """
        for name, content in contents.items():
            with files.writing(self.out / name):
                files.replace_file(self.out / name, content)


def predictions_json(predictions: Sequence[TaskPrediction]) -> str:
    """A JSON list with one object per image: path, prediction, error or null."""
    return json.dumps([prediction.to_dict() for prediction in predictions], indent=2)


def print_predictions(
    predictions: Sequence[TaskPrediction], *, console: Console | None = None
) -> None:
    """Print each prediction below the path of its image; images with an error are left out.

    Args:
        predictions: one per image.
        console: where to print; None takes standard output.
    """
    console = console or Console()
    for prediction in predictions:
        if prediction.error is None:
            path = shown(prediction.path)
            console.print(path, style="bold", markup=False, highlight=False, soft_wrap=True)
            console.print(prediction)
