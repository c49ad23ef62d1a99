"""``pacavit predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pacavit_cli.console import echo
from pacavit_cli.options import Ensemble, Model, Precision, TestTimeAugmentation


def predict(
    model: Model,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")
    ],
    ensemble: Ensemble = None,
    tta: TestTimeAugmentation = None,
    precision: Precision = "fp32",
    top_k: Annotated[int, typer.Option(metavar="K", help="Number of classes of each image.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="Write a table FILE.csv or FILE.parquet, or FILE.json, instead; of a "
            "segmentation, a folder DIR of label images, overlays and areas; of detections, one of "
            "overlays, and predictions.json in COCO's result format.",
        ),
    ] = None,
    score: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Of detectors: least score of the objects that are printed and drawn, by default "
            "0.5; predictions.json has all.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 and so on.")] = "auto",
    batch_size: Annotated[
        int, typer.Option(metavar="N", help="Images that the network gets at once.")
    ] = 16,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace FILE, or write into a folder DIR that is not empty."
        ),
    ] = False,
) -> None:
    """Predict classes of images or pixels, or objects: pacavit predict runs/digits a.png."""
    from pacavit import api
    from pacavit.report.prediction import predictions_json, print_predictions
    from pacavit.utils.text import shown

    predictions = api.predict(
        [model, *ensemble] if ensemble else model,
        images,
        top_k=top_k,
        out=out,
        overwrite=overwrite,
        device=device,
        batch_size=batch_size,
        tta=tta,
        precision=precision,
        score=score,
        progress=True,
    )
    if json:
        echo(predictions_json(predictions))
    elif out is None:
        print_predictions(predictions)
    else:
        number = sum(prediction.error is None for prediction in predictions)
        echo(f"wrote {shown(out)}: {number:,} {'image' if number == 1 else 'images'}")
    for prediction in predictions:
        if prediction.error:
            echo(f"error: {prediction.error}", err=True)
    if any(prediction.error for prediction in predictions):
        raise typer.Exit(2)
