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
        str, typer.Option(help="fp32, fp16, bf16 or int8, where the engine has it.")
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
            "run's, or pictures of this package. int8 needs it.",
        ),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="The same as --precision int8: quantized, calibrated on 256 training images, and "
            "refused if the validation score drops by more than 0.3 points.",
        ),
    ] = False,
    allow_drop: Annotated[
        bool, typer.Option("--allow-drop", help="Keep an int8 file that loses more.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")] = False,
) -> None:
    """Export a model for another engine, checked: pacavit export runs/digits digits.onnx."""
    from pacavit import api
    from pacavit.errors import PacavitError
    from pacavit.utils.text import shown

    if int8 and precision not in ("fp32", "int8"):
        raise PacavitError(f"--int8 and --precision {precision} exclude each other; give one")
    made = api.export(
        model,
        out,
        to=to,
        input=input_,  # type: ignore[arg-type]  # checked there
        precision="int8" if int8 else precision,  # type: ignore[arg-type]
        size=size,
        data=data,
        allow_drop=allow_drop,
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
