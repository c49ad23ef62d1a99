"""``pacavit predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pacavit_cli.console import echo


def predict(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Run folder, weights file or packaged name.")
    ],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")
    ],
    ensemble: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="A further model, whose probabilities are averaged with those of MODEL; "
            "repeatable.",
        ),
    ] = None,
    tta: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Test-time augmentation: flip averages an image and its mirror image.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Predict, for example the five most probable classes: pacavit predict runs/digits a.png."""
    from pacavit import api
    from pacavit.report.prediction import predictions_json, print_predictions

    models = [model, *ensemble] if ensemble else model
    predictions = api.predict(models, images, tta=tta, progress=True)
    if json:
        echo(predictions_json(predictions))
    else:
        print_predictions(predictions)
    for prediction in predictions:
        if prediction.error:
            echo(f"error: {prediction.error}", err=True)
    if any(prediction.error for prediction in predictions):
        raise typer.Exit(2)
