"""``pacavit explain-evaluate``, and its old name ``explain-bench``."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from pacavit_cli.console import echo
from pacavit_cli.options import Model


def explain_evaluate(
    model: Model,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the tables and the page.")],
    data: Annotated[
        Path | None, typer.Option(metavar="ROOT", help="Folder with the data set.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Methods (pacavit list methods); by default all that can explain the model.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    limit: Annotated[
        int, typer.Option(min=1, help="Number of images, in a fixed random order of the split.")
    ] = 1000,
    skip: Annotated[
        int, typer.Option(min=0, help="Number of images of that order to leave out first.")
    ] = 0,
    precision: Annotated[
        str, typer.Option(help="fp32 or bf16, for predictions on altered images.")
    ] = "fp32",
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace the results in DIR, or unfinished ones with other settings.",
        ),
    ] = False,
) -> None:
    """Measure how faithful explanations are: pacavit explain-evaluate cifar10_nano_conv --out DIR.

    If it is interrupted, repeat the same command to resume it.
    """
    from pacavit import api
    from pacavit.report.explanation.evaluation import PAGE, print_explanation_report

    report = api.explain_evaluate(
        model,
        out,
        data=data,
        methods=None if methods is None else methods.split(","),
        split=split,
        limit=limit,
        skip=skip,
        precision=precision,
        overwrite=overwrite,
        progress=True,
    )
    print_explanation_report(report)
    echo(f"page in {out / PAGE}")


@wraps(explain_evaluate)
def explain_bench(**options: Any) -> None:
    """The old name of the verb, for one release."""
    echo(
        "warning: explain-bench is now called explain-evaluate; the old name will be removed in "
        "the next release",
        err=True,
    )
    explain_evaluate(**options)
