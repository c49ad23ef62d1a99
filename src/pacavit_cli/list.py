"""``pacavit list``."""

from __future__ import annotations

from typing import Annotated

import typer

from pacavit_cli.console import echo
from pacavit_cli.names import packaged_entries


def list_(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="models, clusterings, attentions, heads, detectors, methods, recipes, datasets, "
            "tasks, loggers, formats or weights.",
        ),
    ],
) -> None:
    """Show the names that other commands take: pacavit list recipes."""
    entries = packaged_entries(kind)
    if entries is None:
        from pacavit import api

        entries = [(entry.name, entry.summary) for entry in api.list_names(kind)]
    width = max((len(name) for name, _ in entries), default=0)
    for name, summary in entries:
        echo(f"{name:<{width}}  {summary}".rstrip())
