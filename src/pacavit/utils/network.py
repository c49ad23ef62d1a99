"""Sockets that servers listen at."""

from __future__ import annotations

import errno
import ipaddress
import socket

from pacavit.errors import PacavitError

__all__ = ["address", "is_local", "listen", "local_names"]


def is_local(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def local_names(host: str) -> list[str]:
    """The values of the Host header, without the port, that a local server should accept.

    Accepting only these prevents DNS rebinding: a foreign site whose name resolves to this machine
    gets no response.
    """
    return ["127.0.0.1", "localhost", "[::1]", host]


def address(host: str, listener: socket.socket) -> str:
    """The URL of a server that listens at a socket."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}/"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: address to listen at.
        port: to listen at; 0 chooses a free one.

    Raises:
        PacavitError: the port is in use, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise PacavitError(
                f"port {port} of {host} is in use; give another one with --port, or 0 for a "
                "free one"
            ) from None
        reason = error.strerror if isinstance(error, OSError) else error
        raise PacavitError(
            f"cannot listen at port {port} of {host}: {reason}; give another --host or --port"
        ) from error
    return listener
