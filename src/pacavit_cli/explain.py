"""``pacavit explain``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from pacavit_cli.console import echo
from pacavit_cli.options import Model


def explain(
    model: Model,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the pictures and the page.")],
    class_: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="C",
            help="Class to explain, name or index; default: top-1 class, in segmentation the "
            "largest classes, in detection the objects with the highest scores.",
        ),
    ] = None,
    stage: Annotated[
        int | None,
        typer.Option(metavar="N", help="Stage whose clusters make the map; default: the last."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Explanation method (pacavit list methods); default: the most faithful one, if "
            "explain-evaluate has measured the model, else one that depends on the model.",
        ),
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of pacavit explain-evaluate for MODEL; default: explain-evaluate in its "
            "run folder.",
        ),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y",
            help="Explain the region of one class that is connected with this pixel "
            "(segmentation), or the object there (detection).",
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Segmentation: explain the region where this image is not 0."
        ),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(
            metavar="X1,Y1,X2,Y2",
            help="Detection: explain why there is an object in this box, or why not.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the explanations in DIR.")
    ] = False,
) -> None:
    """Explain predictions with maps and clusters: pacavit explain MODEL a.png --out DIR."""
    from pacavit import api
    from pacavit.report.explanation.page import explanations_json, print_explanations

    explained = api.explain(
        model,
        images,
        out,
        label=class_,
        stage=stage,
        method=method,
        measured=measured,
        region=None if region is None else _pixel(region),
        mask=mask,
        box=None if box is None else _box(box),
        overwrite=overwrite,
        progress=True,
    )
    if json:
        echo(explanations_json(explained))
    else:
        print_explanations(explained, out)
    for image in explained:
        if image.error:
            echo(f"error: {image.error}", err=True)
    if any(image.error for image in explained):
        raise typer.Exit(2)


def _pixel(text: str) -> tuple[int, int]:
    """Two numbers "x,y"."""
    found = re.fullmatch(r"(\d{1,9}),(\d{1,9})", text, re.ASCII)
    if found is None:
        raise typer.BadParameter(
            f"{text!r} is not a pixel; write its column and row, as in 120,80",
            param_hint="--region",
        )
    return int(found[1]), int(found[2])


def _box(text: str) -> tuple[float, float, float, float]:
    """Four numbers "x1,y1,x2,y2"."""
    number = r"(-?\d{1,9}(?:\.\d{1,9})?)"
    found = re.fullmatch(",".join([number] * 4), text, re.ASCII)
    if found is None:
        raise typer.BadParameter(
            f"{text!r} is not a box; write its left, top, right and bottom in pixels, as in "
            "120,80,200,160",
            param_hint="--box",
        )
    x1, y1, x2, y2 = map(float, found.groups())
    return x1, y1, x2, y2
