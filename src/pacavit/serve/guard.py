"""What every request passes first: who may ask, how much may be sent, and how long it may take."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

from pacavit.serve.metrics import Metrics
from pacavit.serve.options import ServeOptions
from pacavit.serve.refusals import Refusal, overloaded

__all__ = ["MISTAKE", "OPEN", "Guard", "error_body"]

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

OPEN = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})
"""Paths that need no token, because probes have none."""

MISTAKE = "the server made a mistake; its log says more"
"""The error of a request that fails by an error of this package."""

_BODIES = 8  # times the largest body: what all bodies together may take in memory
_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
_log = logging.getLogger("pacavit.serve")


def error_body(message: str) -> bytes:
    """The body of every error."""
    return json.dumps({"error": message}).encode()


class Guard:
    """Middleware: checks host and token, reads the body within limits, counts, and catches errors.

    The application gets a request when its body has arrived. Until then it takes no room in a queue
    and no thread, so that slow clients hold up nobody.

    Args:
        app: the application.
        options: limits and token.
        metrics: that are updated.
    """

    def __init__(self, app: App, options: ServeOptions, metrics: Metrics) -> None:
        self.app, self.options, self.metrics = app, options, metrics
        self._room = _BODIES * options.body_bytes

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        try:
            await self._pass_on(scope, receive, answer)
        except Exception:
            # The client learns nothing of the inside; the log has all.
            _log.exception("%s %s failed", scope["method"], scope["path"])
            if not status:
                refusal = Refusal(500, MISTAKE)
                await _refuse(refusal, answer)
        if status:
            # Paths that no route has would make any number of names.
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, status).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)

    async def _pass_on(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        body = bytearray()
        try:
            headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
            self._check(scope["path"], headers)
            if await self._read(receive, body):
                await self.app(scope, _replay(bytes(body), receive), send)
        except Refusal as refusal:
            await _refuse(refusal, send)
        finally:
            self._room += len(body)

    def _check(self, path: str, headers: Mapping[str, bytes]) -> None:
        """Raise Refusal unless host, token, encoding and declared length are right."""
        options = self.options
        if options.hosts:
            host = headers.get("host", b"").decode("latin-1")
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name not in options.hosts:
                raise Refusal(400, "the request is for another host; ask for the server's own")
        if options.token is not None and path not in OPEN:
            given = headers.get("authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + options.token.encode()):
                raise Refusal(
                    401, "the token is missing or wrong; send Authorization: Bearer TOKEN"
                )
        if headers.get("content-encoding", b"identity").lower() != b"identity":
            raise Refusal(415, "bodies must not be compressed; send it without Content-Encoding")
        length = headers.get("content-length", b"0")
        if length.isdigit() and int(length) > options.body_bytes:
            raise self._too_large()

    async def _read(self, receive: Receive, body: bytearray) -> bool:
        """Append the whole body of a request; returns False if the client has gone."""
        try:
            async with asyncio.timeout(self.options.timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return False
                    chunk = message.get("body", b"")
                    if len(body) + len(chunk) > self.options.body_bytes:
                        raise self._too_large()
                    if len(chunk) > self._room:
                        raise overloaded("too many bodies are being sent; try again later")
                    self._room -= len(chunk)
                    body += chunk
                    if not message.get("more_body", False):
                        return True
        except TimeoutError:
            raise Refusal(
                408, f"the body did not arrive within {self.options.timeout:g} seconds"
            ) from None

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the body is larger than the limit of {self.options.max_body:g} MB")


def _replay(body: bytes, receive: Receive) -> Receive:
    """Messages with a body that has arrived; later ones say whether the client is still there."""
    sent = False

    async def replayed() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def _refuse(refusal: Refusal, send: Send) -> None:
    body = error_body(refusal.message)
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        # The rest of the body, if there is one, is not read.
        "connection": "close",
        **refusal.headers,
    }
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
