"""``pacavit train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pacavit_cli.console import echo


def train(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="A recipe's name (pacavit list recipes) or file."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run.")],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="ROOT", help="Folder with the data set; relative to the current folder."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change the recipe; repeatable."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the interrupted run in DIR.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in DIR.")] = False,
) -> None:
    """Train a model: pacavit train digits --out runs/digits."""
    if os.environ.get("RANK", "0") == "0":  # one of the processes of torchrun
        echo(f"training {recipe} into {out}: loading the libraries")
    from pacavit import api

    api.train(
        recipe,
        out,
        data=data,
        set=set_ or (),
        resume=resume,
        overwrite=overwrite,
        progress=True,
    )
