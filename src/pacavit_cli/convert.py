"""``pacavit convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    official: Annotated[
        Path, typer.Argument(metavar="OFFICIAL.pth", help="Checkpoint of the original PaCa-ViT.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="Weights file to write.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Original name, such as pacavit_tiny_p2cconv_100_0; inferred by default.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Convert original weights for this package: pacavit convert IMNET_224_x.pth x.safetensors."""
    from pacavit import api
    from pacavit.report.publishing.conversion import print_conversion

    print_conversion(api.convert(official, out, model=model, overwrite=overwrite))
