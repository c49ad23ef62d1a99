"""``pacavit serve``."""

from __future__ import annotations

from typing import Annotated

import typer


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Run folders, weights files or packaged names, each perhaps with its name in "
            "URLs: NAME=MODEL.",
        ),
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="0 chooses a free one.")
    ] = 8000,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Anything but a loopback address needs a token."),
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            envvar="PACAVIT_TOKEN",
            help="What requests have to bring as Authorization: Bearer TOKEN. Others see options "
            "of a process: better set the variable.",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Processes, each with all models; dead ones are replaced."
        ),
    ] = 1,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1 and so on.")
    ] = "auto",
    max_batch: Annotated[
        int, typer.Option(metavar="N", help="Images that the network gets at once.")
    ] = 16,
    max_delay: Annotated[
        float, typer.Option(metavar="MS", help="Milliseconds that an image waits for others.")
    ] = 2.0,
    queue: Annotated[
        int,
        typer.Option(metavar="N", help="Images in work per model; more are refused with 503."),
    ] = 256,
    max_images: Annotated[int, typer.Option(metavar="N", help="Images in a request.")] = 64,
    max_body: Annotated[float, typer.Option(metavar="MB", help="Body of a request.")] = 32.0,
    max_pixels: Annotated[float, typer.Option(metavar="MP", help="Megapixels of an image.")] = 50.0,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="For a request to arrive, and then for it to be answered."
        ),
    ] = 30.0,
    reload: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Between looks at whether weights changed; 0: never."),
    ] = 2.0,
) -> None:
    """Serve models over HTTP: pacavit serve runs/digits.

    Image files, the Open Inference Protocol V2 and Prometheus' metrics. The page of the server at /
    lists all routes.
    """
    from pacavit import api

    api.serve(
        models,
        host=host,
        port=port,
        token=token,
        workers=workers,
        device=device,
        max_batch=max_batch,
        max_delay=max_delay,
        queue=queue,
        max_images=max_images,
        max_body=max_body,
        max_pixels=max_pixels,
        timeout=timeout,
        reload=reload,
    )
