"""``pacavit compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pacavit_cli.console import echo


def compare(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Packaged recipe or a file.")],
    over: Annotated[
        list[str],
        typer.Option(
            metavar="FIELD=A,B,C",
            help="What to vary, such as model.clustering=conv,mlp,kmeans; repeatable.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the runs and the comparison.")
    ],
    seeds: Annotated[
        str, typer.Option(metavar="A,B", help="Each value is trained with each seed.")
    ] = "0",
    data: Annotated[
        Path | None, typer.Option(metavar="ROOT", help="Folder with the data set.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A change of all runs; repeatable."),
    ] = None,
) -> None:
    """Train variants and compare them: pacavit compare digits --over model.clustering=conv,mlp."""
    from pacavit import api
    from pacavit.compare.pages import PAGE, print_comparison

    numbers = seeds.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise typer.BadParameter(f"seeds are numbers such as 0,1, not {seeds!r}")
    comparison = api.compare(
        recipe,
        over,
        out,
        seeds=[int(number) for number in numbers],
        data=data,
        set=set_ or (),
        progress=True,
    )
    print_comparison(comparison)
    echo(f"comparison in {out / PAGE}")
