"""Predictions on the console; their JSON is tested with the command."""

import io
from pathlib import Path

from rich.console import Console

from pacavit.report.prediction import print_predictions
from pacavit.report.tasks.classification import ImagePrediction
from pacavit.tasks.classification import ClassProbability


def test_names_and_paths_are_shown_as_they_are() -> None:
    top = (ClassProbability("[b]odd", 0.995), ClassProbability("other", 0.005))
    stream = io.StringIO()
    print_predictions(
        [ImagePrediction(Path("[x].png"), top)], console=Console(file=stream, width=80)
    )
    text = stream.getvalue()
    assert "[x].png" in text
    assert "99.50%  [b]odd" in text
    assert text.index("[b]odd") < text.index("other")
