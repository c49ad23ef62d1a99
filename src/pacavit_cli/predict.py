"""``pacavit predict``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pacavit_cli.console import echo
from pacavit_cli.options import Ensemble, Model, Precision, TestTimeAugmentation


def predict(
    model: Model,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...",
            help="Image files, folders of them, lists of paths (.txt, one a line), or parquet "
            "files with images or paths.",
        ),
    ],
    ensemble: Ensemble = None,
    tta: TestTimeAugmentation = None,
    precision: Precision = "fp32",
    top_k: Annotated[int, typer.Option(metavar="K", help="Number of classes of each image.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="Write a table FILE.csv or FILE.parquet, or FILE.json or FILE.jsonl, instead; of "
            "a segmentation, a folder DIR of label images, overlays and areas; of detections, one "
            "of overlays, and predictions.json in COCO's result format. A file that was not "
            "finished is continued.",
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
    num_workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Processes that read images in advance; by default as many as cores for many "
            "images.",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Predict shard I (from 0) of N equal ones into FILE-0000I-of-0000N; auto takes it "
            "from the variables of torchrun or Slurm.",
        ),
    ] = None,
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
    from pacavit.errors import PacavitError
    from pacavit.report.prediction import predictions_json, print_predictions
    from pacavit.utils.text import shown

    models = [model, *ensemble] if ensemble else model
    if out is not None and not json:
        written = api.predict_to_file(
            models,
            images,
            out,
            top_k=top_k,
            overwrite=overwrite,
            device=device,
            batch_size=batch_size,
            tta=tta,
            precision=precision,
            score=score,
            num_workers=num_workers,
            shard=shard,
            progress=True,
        )
        number = written.num_images
        echo(f"wrote {shown(written.path)}: {number:,} {'image' if number == 1 else 'images'}")
        _print_errors(written.errors, written.num_errors)
        return
    if shard is not None:
        raise PacavitError("--shard is for predictions in a file: give --out FILE, without --json")
    predictions = api.predict(
        models,
        images,
        top_k=top_k,
        out=out,
        overwrite=overwrite,
        device=device,
        batch_size=batch_size,
        tta=tta,
        precision=precision,
        score=score,
        num_workers=num_workers,
        progress=True,
    )
    if json:
        echo(predictions_json(predictions))
    else:
        print_predictions(predictions)
    errors = [prediction.error for prediction in predictions if prediction.error]
    _print_errors(errors, len(errors))


def _print_errors(errors: Sequence[str], number: int) -> None:
    """Print the messages of images that could not be read, and exit with 2 if there are any.

    Args:
        errors: all of them, or the first ones.
        number: of all of them.
    """
    for error in errors:
        echo(f"error: {error}", err=True)
    if number > len(errors):
        echo(f"and {number - len(errors):,} more errors, in the column 'error'", err=True)
    if number:
        raise typer.Exit(2)
