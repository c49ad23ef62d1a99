"""``pacavit bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pacavit_cli.console import echo


def bench(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for results and pictures.")],
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="Models of timm (ours included), runs, weights or peers; ratios are to the first. "
            "Arguments may follow a name of timm: pacavit_small,num_clusters=49.",
        ),
    ] = None,
    peers: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A set of models besides: paper (its table on ImageNet) or attentions "
            "(PaCa-ViT-S with others).",
        ),
    ] = None,
    sizes: Annotated[
        str, typer.Option(metavar="A,B", help="Heights and widths of the images in pixels.")
    ] = "224",
    batch_sizes: Annotated[str, typer.Option(metavar="A,B", help="Images at once.")] = "1,16",
    engines: Annotated[
        str,
        typer.Option(metavar="A,B", help="eager, optimized, compile, onnxruntime or openvino."),
    ] = "eager",
    precisions: Annotated[
        str, typer.Option(metavar="A,B", help="fp32, bf16, fp16 or int8.")
    ] = "fp32",
    rounds: Annotated[
        int,
        typer.Option(help="Batches that are timed per model and setting; 0 only counts."),
    ] = 20,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda and so on.")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the interrupted benchmark in DIR.")
    ] = False,
) -> None:
    """Measure speed, memory and size of models side by side: pacavit bench pvt_v2_b2 pacavit_small.

    If it is interrupted, repeat the same command with --resume.
    """
    from pacavit import api
    from pacavit.bench.pages import TEXT, print_benchmark

    found = api.bench(
        models or [],
        out,
        peers=peers,
        sizes=_numbers("sizes", sizes),
        batch_sizes=_numbers("batch sizes", batch_sizes),
        engines=engines.split(","),
        precisions=precisions.split(","),
        rounds=rounds,
        device=device,
        resume=resume,
        progress=True,
    )
    print_benchmark(found)
    echo(f"tables and pictures in {out / TEXT}")


def _numbers(option: str, text: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise typer.BadParameter(f"{option} are numbers such as 1,16, not {text!r}")
    return [int(word) for word in words]
