"""The most probable classes of images, as JSON and on the console."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pacavit.data import DataInfo
from pacavit.engine.predictor import Predicted
from pacavit.tasks.classification import ClassProbability, top_classes

__all__ = ["ImagePrediction", "predictions_json", "print_predictions", "public_predictions"]

BAR_CELLS = 20  # length of the bar of a probability of 1


@dataclass(frozen=True)
class ImagePrediction:
    """The most probable classes of one image.

    Attributes:
        path: the image file.
        top: the most probable classes, most probable first; empty if there was an error.
        error: why the image could not be read, in one line; None if it could.
    """

    path: Path
    top: tuple[ClassProbability, ...]
    error: str | None = None


def public_predictions(
    found: Sequence[Predicted], info: DataInfo, top_k: int
) -> list[ImagePrediction]:
    """What a classifier's task predicted, with the names of the classes."""
    return [
        ImagePrediction(
            each.source,
            ()
            if each.record is None
            else top_classes(each.record.probabilities, info.class_names, top_k),
            each.error,
        )
        for each in found
    ]


def predictions_json(predictions: Sequence[ImagePrediction]) -> str:
    """A JSON list with one object an image: path, top (class, probability), error or null."""
    records = [
        {
            "path": str(prediction.path),
            "top": [
                {"class": name, "probability": round(probability, 6)}
                for name, probability in prediction.top
            ],
            "error": prediction.error,
        }
        for prediction in predictions
    ]
    return json.dumps(records, indent=2)


def print_predictions(predictions: Sequence[ImagePrediction], console: Console) -> None:
    """Print a small table an image, most probable class first; those with errors are left out.

    Args:
        predictions: what was predicted.
        console: where to print.
    """
    for prediction in predictions:
        if prediction.error is not None:
            continue
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, probability in prediction.top:
            bar = "█" * round(probability * BAR_CELLS)
            table.add_row(f"{probability:7.2%}", escape(name), f"[cyan]{bar}[/cyan]")
        console.print(str(prediction.path), style="bold", markup=False, highlight=False)
        console.print(table)
