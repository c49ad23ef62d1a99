"""``pacavit list``."""

from __future__ import annotations

from typing import Annotated

import typer

from pacavit_cli.console import echo


def list_(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="models, clusterings, attentions, methods, recipes, datasets or weights.",
        ),
    ],
) -> None:
    """Show the names that other commands take: pacavit list recipes."""
    from pacavit import api

    entries = api.list_names(kind)
    width = max((len(entry.name) for entry in entries), default=0)
    for entry in entries:
        echo(f"{entry.name:<{width}}  {entry.summary}".rstrip())
