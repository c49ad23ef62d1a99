"""``pacavit explain-bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pacavit_cli.console import echo


def explain_bench(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Run folder, weights file or packaged name.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the tables and the page.")],
    data: Annotated[
        Path | None, typer.Option(metavar="ROOT", help="Folder with the data set.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Methods (pacavit list methods); all that can if none."),
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    limit: Annotated[int, typer.Option(min=1, help="Images, drawn from the split.")] = 1000,
    skip: Annotated[int, typer.Option(min=0, help="Images that come before those.")] = 0,
    precision: Annotated[
        str, typer.Option(help="fp32 or bf16, of answers to altered images.")
    ] = "fp32",
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace the bench in the folder, or another one begun there."
        ),
    ] = False,
) -> None:
    """Measure how true explanations are: pacavit explain-bench cifar10_nano_conv --out bench.

    If it was stopped, repeat the same command: it goes on after what is measured.
    """
    from pacavit import api
    from pacavit.report.explanation.evaluation import PAGE, print_bench

    report = api.explain_bench(
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
    print_bench(report)
    echo(f"page in {out / PAGE}")
