"""Arguments and options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["Ensemble", "Model", "Precision", "TestTimeAugmentation"]

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="Run folder, weights file or packaged name.")
]
Ensemble = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODEL",
        help="A further model, whose probabilities are averaged with those of MODEL; repeatable.",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="fp32; bf16, which is faster where the processor computes with it and gives slightly "
        "other numbers; auto: bf16 there if the first images agree.",
    ),
]
TestTimeAugmentation = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Test-time augmentation: flip averages an image and its mirror image; flip_shift "
        "does so at three positions, one pixel apart.",
    ),
]
