"""``pacavit evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pacavit_cli.options import Ensemble, Model, TestTimeAugmentation


def evaluate(
    model: Model,
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
    ensemble: Ensemble = None,
    tta: TestTimeAugmentation = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the results; inside the run if not given. An ensemble needs one.",
        ),
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
