"""Predictions of any task as JSON and on the console."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console

from pacavit.tasks import TaskPrediction
from pacavit.utils.text import shown

__all__ = ["predictions_json", "print_predictions"]


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
