"""``pacavit convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    official: Annotated[
        str,
        typer.Argument(
            metavar="WEIGHTS",
            help="File of the authors of PaCa-ViT, timm or torchvision; timm:NAME, "
            "hf-hub:USER/NAME.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="Weights file to write.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Original name of a PaCa-ViT (inferred by default), or timm's name of any model.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Convert others' weights for this package: pacavit convert IMNET_224_x.pth x.safetensors."""
    from pacavit import api
    from pacavit.report.publishing.conversion import print_conversion

    print_conversion(api.convert(official, out, model=model, overwrite=overwrite))
