"""Serve the web demo, and models for programs."""

from __future__ import annotations

from collections.abc import Sequence

from pacavit import demo as web_demo
from pacavit import serve as server
from pacavit.api._console import print_line
from pacavit.report.explanation.page import write_explanations

__all__ = ["demo", "serve"]


def demo(
    models: Sequence[str] = (),
    *,
    host: str = web_demo.HOST,
    port: int = web_demo.PORT,
    browser: bool = False,
) -> None:
    """Serve a page that explains uploaded images, until Ctrl-C.

    Args:
        models: run folders, weights files or packaged names to choose from, in addition to the
            packaged weights, which come last.
        host: address to listen on; the default accepts connections from this machine only.
        port: port to listen on; 0 chooses a free one.
        browser: open the page in a browser.

    Raises:
        PacavitError: the extra ``demo`` is missing, a model cannot be loaded, or the port is in
            use.
    """
    web_demo.serve(
        models, host=host, port=port, browser=browser, write=write_explanations, log=print_line
    )


def serve(
    models: str | Sequence[str],
    *,
    host: str = server.HOST,
    port: int = server.PORT,
    token: str | None = None,
    workers: int = 1,
    device: str = "auto",
    max_batch: int = 16,
    max_delay: float = 2.0,
    queue: int = 256,
    max_images: int = 64,
    max_body: float = 32.0,
    max_pixels: float = 50.0,
    timeout: float = 30.0,
    reload: float = 2.0,
) -> None:
    """Serve models over HTTP until Ctrl-C or SIGTERM; requests that have arrived are answered.

    Args:
        models: run folders, weights files or packaged names, each perhaps with its name in URLs:
            ``NAME=MODEL``; one, or several.
        host: address to listen on; anything but a loopback address needs a token.
        port: port to listen on; 0 chooses a free one.
        token: that requests have to bring as ``Authorization: Bearer TOKEN``.
        workers: number of processes, each with all models; one that dies is replaced.
        device: where to compute: "auto", "cpu", "cuda", "cuda:1" and so on.
        max_batch: largest number of images that the network gets at once.
        max_delay: milliseconds that an image waits for others of its batch.
        queue: largest number of images in work, per model; further ones are refused with 503.
        max_images: largest number of images in a request.
        max_body: largest body of a request in MB.
        max_pixels: largest image in megapixels.
        timeout: seconds that a request has to arrive, and then to be answered.
        reload: seconds between looks at whether the weights of a model changed; 0: never.

    Raises:
        PacavitError: the extra ``serve`` is missing, a model cannot be loaded, an option does not
            fit, or the port is in use.
    """
    options = server.ServeOptions(
        device=device,
        max_batch=max_batch,
        max_delay=max_delay,
        queue=queue,
        max_images=max_images,
        max_body=max_body,
        max_pixels=max_pixels,
        timeout=timeout,
        reload=reload,
        token=token,
    )
    server.serve(
        [models] if isinstance(models, str) else models,
        host=host,
        port=port,
        workers=workers,
        options=options,
        log=print_line,
    )
