"""Predictions as JSON and on the console."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pacavit.engine.predictor import ImagePrediction
from pacavit.utils.text import shown

__all__ = ["predictions_json", "print_predictions"]

BAR_CELLS = 20  # length of the bar of a probability of 1


def predictions_json(predictions: Sequence[ImagePrediction]) -> str:
    """A JSON list with one object an image: path, top (class, probability), error or null."""
    records = [
        {
            "path": shown(prediction.path),
            "top": [
                {"class": name, "probability": round(probability, 6)}
                for name, probability in prediction.top
            ],
            "error": prediction.error,
        }
        for prediction in predictions
    ]
    return json.dumps(records, indent=2)


def print_predictions(
    predictions: Sequence[ImagePrediction], *, console: Console | None = None
) -> None:
    """Print a small table an image, the likeliest class first; images with an error are left out.

    Args:
        predictions: what was predicted.
        console: where to print; None takes standard output.
    """
    console = console or Console()
    for prediction in predictions:
        if prediction.error is not None:
            continue
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, probability in prediction.top:
            bar = "█" * round(probability * BAR_CELLS)
            table.add_row(f"{probability:7.2%}", escape(name), f"[cyan]{bar}[/cyan]")
        console.print(shown(prediction.path), style="bold", markup=False, highlight=False)
        console.print(table)
