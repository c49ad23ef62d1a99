"""``pacavit demo``."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Run folders or weights files to offer in addition to the packaged weights.",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="0 chooses a free one.")
    ] = 7860,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Anything but 127.0.0.1 may open the demo to other machines."
        ),
    ] = "127.0.0.1",
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
) -> None:
    """Explain your own images in a browser: pacavit demo runs/digits."""
    from pacavit import api

    api.demo(models or (), host=host, port=port, browser=browser)
