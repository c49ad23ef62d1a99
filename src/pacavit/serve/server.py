"""Serves models in one process, or in several that share a socket."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pacavit.errors import CheckpointError, PacavitError
from pacavit.serve.options import ServeOptions
from pacavit.utils.network import address, is_local, listen, local_names
from pacavit.utils.text import one_line

if TYPE_CHECKING:
    import uvicorn

__all__ = ["HOST", "PORT", "make_server", "serve"]

HOST, PORT = "127.0.0.1", 8000
_NEEDED = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")


def serve(
    models: Sequence[str],
    *,
    host: str = HOST,
    port: int = PORT,
    workers: int = 1,
    options: ServeOptions | None = None,
    log: Callable[[str], None],
) -> None:
    """Serve models until Ctrl-C or SIGTERM; requests that have arrived are answered before.

    Args:
        models: run folders, files or packaged names, each perhaps with its name: ``NAME=SOURCE``.
        host: address to listen at; anything but a loopback address needs a token.
        port: to listen at; 0 chooses a free one.
        workers: number of processes; each holds all models.
        options: limits and settings.
        log: receives the address and what happens to workers, line by line.

    Raises:
        PacavitError: the extra is missing, a model cannot be loaded, the port is not available, or
            an option does not fit.
    """
    options = _checked(host, workers, options or ServeOptions())
    from pacavit.serve.models import model_sources

    sources = model_sources(models)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    with listen(host, port) as listener:
        url = address(host, listener)
        if workers > 1:
            from pacavit.serve.workers import supervise

            supervise(sources, listener, workers, options, url, log=log)
        else:
            _serve_alone(sources, listener, options, url, log)


def make_server(
    sources: Mapping[str, str],
    options: ServeOptions,
    *,
    wait: bool,
    ended: Callable[[BaseException], None],
) -> uvicorn.Server:
    """A server to run with a socket.

    Args:
        sources: of the models by name.
        options: limits and settings.
        wait: answer nothing before all models have answered once.
        ended: is called if a model cannot be loaded, or work on models ends by an error. The server
            stops then.
    """
    import uvicorn

    from pacavit.serve.app import create_app

    def stop(error: BaseException) -> None:
        ended(error)
        server.should_exit = True

    app = create_app(sources, options, wait=wait, ended=stop)
    # An answer takes at most the time-out, so all of them are given before connections are closed.
    config = uvicorn.Config(
        app,
        log_level="critical",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=round(options.timeout) + 1,
    )
    server = uvicorn.Server(config)
    return server


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within it, Ctrl-C and SIGTERM, which uvicorn raises again at its end, end no process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def as_user_error(error: BaseException) -> BaseException:
    """What is raised for an error that ended the work on models; those of users keep their type."""
    if isinstance(error, PacavitError | OSError):
        return error
    return CheckpointError(f"the models cannot be served: {one_line(error, kind=True)}")


def _serve_alone(
    sources: Mapping[str, str],
    listener: socket.socket,
    options: ServeOptions,
    url: str,
    log: Callable[[str], None],
) -> None:
    errors: list[BaseException] = []
    server = make_server(sources, options, wait=False, ended=errors.append)
    log(f"serving {', '.join(sources)} at {url} (Ctrl-C ends it)")
    with ended_by_signals():
        server.run(sockets=[listener])
    if errors:
        raise as_user_error(errors[0])


def _checked(host: str, workers: int, options: ServeOptions) -> ServeOptions:
    """The options with the names of hosts that are answered.

    Raises:
        PacavitError: the extra or the token is missing, or there are no workers.
    """
    for name in _NEEDED:
        if importlib.util.find_spec(name) is None:
            raise PacavitError(
                f"serving needs {name}; install it with: pip install 'pacavit[serve]'"
            )
    if workers < 1:
        raise PacavitError(f"--workers must be at least 1, not {workers}")
    if is_local(host):
        return replace(options, hosts=tuple(local_names(host)))
    if options.token is None:
        raise PacavitError(
            f"{host} can be reached by other machines, so requests need a token: set "
            f"PACAVIT_TOKEN, for example to {secrets.token_urlsafe(24)}, or stay at --host {HOST}"
        )
    return options
