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
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the results; inside a run if not given."),
    ] = None,
) -> None:
    """Measure a model, for example its accuracy and F1: pacavit evaluate runs/digits."""
    from pacavit import api
    from pacavit.report.evaluation import print_evaluation

    evaluation = api.evaluate(
        model, data=data, split=split, all_images=all_, out=out, progress=True
    )
    images = "all images" if all_ else f"{split} split"
    print_evaluation(evaluation, title=f"{model}, {images}")
