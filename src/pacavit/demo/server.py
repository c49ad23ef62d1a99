"""Serves the demo without telemetry, outside requests, or files left behind."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pacavit.demo.archive import Writer
from pacavit.demo.models import Models
from pacavit.errors import PacavitError
from pacavit.utils.network import address, is_local, listen, local_names

if TYPE_CHECKING:
    import fastapi
    import uvicorn

__all__ = ["HOST", "PORT", "prepare", "serve"]

HOST, PORT = "127.0.0.1", 7860
_GRACE = 1  # seconds that open connections get when the server stops


def serve(
    own: Sequence[str],
    *,
    host: str = HOST,
    port: int = PORT,
    browser: bool = False,
    write: Writer,
    log: Callable[[str], None],
) -> None:
    """Serve the demo until Ctrl-C.

    Args:
        own: models to choose from, before the packaged ones.
        host: address to listen at; anything but a loopback address is open to other machines.
        port: to listen at; 0 chooses a free one.
        browser: open the page in a browser.
        write: writes the folder of explanations for downloads.
        log: receives the address and warnings, line by line.

    Raises:
        PacavitError: Gradio is missing, a model cannot be loaded, or the port is not available.
    """
    with prepare(own, host=host, port=port, write=write) as (server, listener, url):
        if not is_local(host):
            log(
                f"warning: everybody who can reach {host} can use the demo, over an unencrypted "
                "connection"
            )
        log(f"the demo is at {url} (Ctrl-C ends it)")
        if browser:
            webbrowser.open(url)  # the socket listens already, so the browser waits
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


@contextmanager
def prepare(
    own: Sequence[str], *, host: str, port: int, write: Writer
) -> Iterator[tuple[uvicorn.Server, socket.socket, str]]:
    """A server, the socket to run it with, and the URL of its page.

    Uploads and results are in a temporary folder, which is removed on exit.

    Raises:
        PacavitError: as ``serve`` does.
    """
    if importlib.util.find_spec("gradio") is None:
        raise PacavitError("the demo needs Gradio; install it with: pip install 'pacavit[demo]'")
    listener = listen(host, port)
    with listener, TemporaryDirectory(prefix="pacavit-demo-") as folder, _private(folder):
        models = Models(own)
        # Gradio reads some of its settings when it is imported.
        import uvicorn

        from pacavit.demo.app import web_app

        async def build() -> fastapi.FastAPI:
            hosts = local_names(host) if is_local(host) else ["*"]
            return web_app(models, Path(folder), write=write, hosts=hosts)

        # Where no event loop runs, Gradio makes several and leaves them open.
        app = asyncio.run(build())
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=_GRACE)
        yield uvicorn.Server(config), listener, address(host, listener)


@contextmanager
def _private(folder: str) -> Iterator[None]:
    """Set environment variables of Gradio and the hub inside the context."""
    settings = {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": folder,
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
