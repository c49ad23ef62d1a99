"""Predictions of any task as files, as JSON and on the console."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from torch import Tensor

from pacavit.errors import PacavitError
from pacavit.tasks import TaskPrediction
from pacavit.utils import files
from pacavit.utils.tables import csv_bytes
from pacavit.utils.text import shown

__all__ = [
    "PictureFolder",
    "PredictionWriter",
    "TableWriter",
    "predictions_json",
    "predictions_table",
    "print_predictions",
]

_SUFFIXES = (".csv", ".json", ".parquet")


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


class TableWriter:
    """Writes the predictions of any task to a file in the format of its suffix.

    Args:
        out: file in ``.csv``, ``.json`` or ``.parquet``.
        overwrite: replace it.

    Raises:
        PacavitError: the suffix is unknown, or something is in the way.
    """

    def __init__(self, out: Path, *, overwrite: bool) -> None:
        if out.suffix.lower() not in _SUFFIXES:
            raise PacavitError(
                f"cannot write predictions to {shown(out)}; its name must end in .csv, .json or "
                ".parquet"
            )
        if out.is_dir():
            raise PacavitError(f"{shown(out)} is a folder; choose another file")
        if out.exists() and not overwrite:
            raise PacavitError(f"{shown(out)} exists; give --overwrite or another file")
        if out.parent.exists() and not out.parent.is_dir():
            raise PacavitError(f"{shown(out.parent)} is a file; choose another folder")
        self.out = out
        self._predictions: list[TaskPrediction] = []

    def add(self, prediction: TaskPrediction, image: Callable[[], Tensor]) -> None:
        """Keep the prediction for the table."""
        self._predictions.append(prediction)

    def finish(self) -> None:
        """Write the file; an older one is replaced."""
        kind = self.out.suffix.lower()
        if kind == ".json":
            content = predictions_json(self._predictions).encode() + b"\n"
        else:
            header, rows = predictions_table(self._predictions)
            content = csv_bytes(header, rows) if kind == ".csv" else _parquet_bytes(header, rows)
        with files.writing(self.out):
            files.replace_file(self.out, content)


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


def predictions_table(
    predictions: Sequence[TaskPrediction],
) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of a table with one row an image; None where an image has no value.

    Items of a list have columns with their number (``class_1``, ``probability_1``, ``class_2``);
    lists of texts are joined by ``;``.
    """
    records = [dict(_columns(prediction.to_dict())) for prediction in predictions]
    names = dict.fromkeys(name for record in records for name in record)
    header = [*(name for name in names if name != "error"), "error"]
    return header, [[record.get(name) for name in header] for record in records]


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


def _columns(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            for number, item in enumerate(value, 1):
                yield from ((f"{key}_{number}", each) for key, each in item.items())
        elif isinstance(value, list):
            if all(isinstance(each, str) for each in value) and value:
                yield name, ";".join(value)
        else:
            yield name, value


def _parquet_bytes(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {}
    for place, name in enumerate(header):
        values = [row[place] for row in rows]
        # Without errors that column would have no type, and tables of several runs not the same.
        columns[name] = pa.array(values, pa.string() if name == "error" else None)
    stream = BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()
