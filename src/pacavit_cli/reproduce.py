"""``pacavit reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pacavit_cli.console import echo


def reproduce(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A published result; without it, all are listed."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the run; runs/NAME if not given.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="ROOT", help="Folder with the data set.")
    ] = None,
) -> None:
    """Train and evaluate a published result again: pacavit reproduce NAME --data ROOT."""
    from rich.console import Console
    from rich.table import Table

    from pacavit import api

    if name is None:
        for entry in api.published():
            scores = ", ".join(f"{key} {value:.4f}" for key, value in entry.scores.items())
            echo(
                f"{entry.name}\n"
                f"  {scores} on {entry.num_images:,} test "
                f"images of {entry.data}; {entry.minutes:g} minutes on {entry.machine}\n"
                f"  {entry.command}"
            )
        return
    entry, found = api.reproduce(name, out or Path("runs") / name, data=data, progress=True)
    table = Table(title=f"{name}, {found.num_images:,} test images", title_justify="left")
    for heading in ("score", "published", "measured", "difference"):
        table.add_column(heading, justify="left" if heading == "score" else "right")
    for score, before in entry.scores.items():
        now = found.scores[score]
        table.add_row(score, f"{before:.4f}", f"{now:.4f}", f"{now - before:+.4f}")
    Console().print(table)
    margin = (
        ""
        if entry.margin is None
        else (f"The 95 % interval of the accuracy over test images is ±{entry.margin:.4f}. ")
    )
    echo(
        f"{margin}Other machines and versions round differently, which has the effect of another "
        "seed."
    )
