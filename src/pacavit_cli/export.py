"""``pacavit export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pacavit_cli.console import echo
from pacavit_cli.options import Model


def export(
    model: Model,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="File to write: .onnx, .xml (OpenVINO) or .pt2; or a folder, with --to.",
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT", help="onnx, openvino, pt2 or triton; by default by the suffix."
        ),
    ] = None,
    input_: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="KIND",
            help="float: normalized images (B, 3, height, width). uint8: pixels (B, height, "
            "width, 3) of any size, which the file crops, resizes and normalizes.",
        ),
    ] = "float",
    precision: Annotated[
        str, typer.Option(help="fp32, fp16 or bf16, where the engine has it.")
    ] = "fp32",
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(
            metavar="HEIGHT WIDTH",
            help="The only size of images that the file takes; by default any, if the network "
            "allows.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="ROOT",
            help="Folder with the data set whose images the file is checked with; by default the "
            "run's, or pictures of this package.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")] = False,
) -> None:
    """Export a model for another engine, checked: pacavit export runs/digits digits.onnx."""
    from pacavit import api
    from pacavit.utils.text import shown

    made = api.export(
        model,
        out,
        to=to,
        input=input_,  # type: ignore[arg-type]  # checked there
        precision=precision,  # type: ignore[arg-type]
        size=size,
        data=data,
        overwrite=overwrite,
        progress=True,
    )
    facts = made.facts
    shape = "any size" if facts.size is None else f"{facts.size[0]} x {facts.size[1]} pixels"
    echo(
        f"wrote {shown(made.path)}: {made.format}, {made.num_bytes / 1e6:.1f} MB, "
        f"{facts.precision}, {facts.input} images of {shape}"
    )
    echo(str(made.agreement))
