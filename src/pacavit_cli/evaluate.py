"""``pacavit evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pacavit_cli.options import Ensemble, Precision, TestTimeAugmentation


def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Run folder, weights file or packaged name."),
    ] = None,
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
    precision: Precision = "fp32",
    corruptions: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...|all",
            help="Measure the accuracy on corrupted images too, at five severities: "
            "gaussian_noise, defocus_blur, contrast, pixelate, jpeg or all; for classifiers.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the results; inside the run if not given. An ensemble needs one.",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Evaluate detections of any tool instead of a model: a file in COCO's result "
            "format. Needs --data.",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of --predictions: the data set; coco by default."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of --predictions: detection or instance_segmentation; by default the latter if "
            "all records have masks.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Of --predictions: an option of the data set, data.options.NAME=VALUE; "
            "repeatable.",
        ),
    ] = None,
) -> None:
    """Evaluate a model, for example its accuracy and F1: pacavit evaluate runs/digits."""
    from pacavit import api
    from pacavit.errors import PacavitError
    from pacavit.report.evaluation import print_evaluation
    from pacavit.utils.text import shown

    if predictions is not None:
        refused: dict[str, object] = {
            "MODEL": model,
            "--all": all_,
            "--ensemble": ensemble,
            "--tta": tta,
            "--precision": precision != "fp32",
            "--corruptions": corruptions,
        }
        for name, value in refused.items():
            if value:
                raise PacavitError(f"--predictions measures a file, without a model; omit {name}")
        evaluation = api.evaluate_predictions(
            predictions,
            data=data,
            dataset=dataset or "coco",
            split=split,
            task=task,
            set=set_ or (),
            out=out,
            progress=True,
        )
        print_evaluation(evaluation, title=f"{shown(predictions.name)}, {split} split")
        return
    for name, value in {"--dataset": dataset, "--task": task, "--set": set_}.items():
        if value:
            raise PacavitError(f"{name} is for --predictions FILE; a model brings its own")
    if model is None:
        raise PacavitError("give a MODEL to evaluate, or --predictions FILE with --data ROOT")
    models = [model, *ensemble] if ensemble else model
    evaluation = api.evaluate(
        models,
        data=data,
        split=split,
        all_images=all_,
        out=out,
        tta=tta,
        precision=precision,
        corruptions=corruptions,
        progress=True,
    )
    title = f"ensemble of {' and '.join(models)}" if ensemble else model
    images = "all images" if all_ else f"{split} split"
    augmented = f", test-time augmentation {tta}" if tta else ""
    print_evaluation(evaluation, title=f"{title}, {images}{augmented}")
