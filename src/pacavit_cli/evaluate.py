"""``pacavit evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Run folder, weights file or packaged name.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="ROOT",
            help="Folder with the data set, relative to the current one; by default the run's. "
            "Of bare class folders the held-out part is measured, unless --all is given.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    all_: Annotated[
        bool,
        typer.Option("--all", help="Measure all images of the folder, not only those held out."),
    ] = False,
    ensemble: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="A further model, whose probabilities are averaged with those of MODEL; "
            "repeatable. Needs --out.",
        ),
    ] = None,
    tta: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Test-time augmentation: flip averages an image and its mirror image. Its "
            "results are reported apart.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the results; inside a run if not given."),
    ] = None,
) -> None:
    """Evaluate a model, for example its accuracy and F1: pacavit evaluate runs/digits."""
    from pacavit import api
    from pacavit.report.evaluation import print_evaluation

    models = [model, *ensemble] if ensemble else model
    evaluation = api.evaluate(
        models, data=data, split=split, all_images=all_, out=out, tta=tta, progress=True
    )
    title = f"ensemble of {' and '.join(models)}" if ensemble else model
    images = "all images" if all_ else f"{split} split"
    augmented = f", test-time augmentation {tta}" if tta else ""
    print_evaluation(evaluation, title=f"{title}, {images}{augmented}")
