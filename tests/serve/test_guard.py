"""Slow and half-sent bodies, and clients that leave."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from pacavit.serve import ServeOptions
from pacavit.serve.guard import Guard
from pacavit.serve.metrics import Metrics

Scenario = Callable[["Client"], Awaitable[None]]


class Client:
    """Sends requests to a guarded application that returns the length of their body."""

    def __init__(self, **options: Any) -> None:
        self.guard = Guard(self.app, ServeOptions(**options), Metrics())
        self.reached = 0

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached += 1
        message = await receive()
        body = str(len(message["body"])).encode()
        if body == b"3":
            raise RuntimeError("a bug")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def ask(self, *chunks: bytes | float | None) -> tuple[int, Any, Mapping[bytes, bytes]]:
        """Send chunks of a body; a number is a pause in seconds, and None leaves."""
        rest = list(chunks)
        sent: list[Any] = []

        async def receive() -> Any:
            while rest and isinstance(rest[0], float):
                await asyncio.sleep(rest.pop(0))  # type: ignore[arg-type]
            chunk = rest.pop(0) if rest else b""
            if chunk is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": chunk, "more_body": bool(rest)}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/x", "headers": []}
        await self.guard(scope, receive, send)
        if not sent:
            return 0, None, {}
        return sent[0]["status"], json.loads(sent[1]["body"]), dict(sent[0]["headers"])


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(main())


def test_the_application_gets_whole_bodies() -> None:
    async def scenario() -> None:
        client = Client()
        status, body, headers = await client.ask(b"ab", 0.01, b"cd")
        assert (status, body) == (200, 4)
        assert headers[b"x-content-type-options"] == b"nosniff"

    run(scenario)


def test_half_sent_bodies_hold_up_nobody_and_end_after_the_time_out() -> None:
    async def scenario() -> None:
        client = Client(timeout=0.3)
        slow = [asyncio.create_task(client.ask(b"ab", 60.0)) for _ in range(200)]
        await asyncio.sleep(0.05)
        assert client.reached == 0
        for _ in range(20):
            assert (await client.ask(b"abcd"))[:2] == (200, 4)
        for answer in await asyncio.gather(*slow):
            status, body, headers = answer
            assert status == 408
            assert body == {"error": "the body did not arrive within 0.3 seconds"}
            assert headers[b"connection"] == b"close"

    run(scenario)


def test_bodies_without_a_length_are_limited_too() -> None:
    async def scenario() -> None:
        client = Client(max_body=0.001)
        status, body, _ = await client.ask(*[bytes(400)] * 3)
        assert status == 413
        assert body == {"error": "the body is larger than the limit of 0.001 MB"}
        assert client.reached == 0

    run(scenario)


def test_bodies_together_are_limited_and_their_room_comes_back() -> None:
    async def scenario() -> None:
        client = Client(max_body=0.001, timeout=0.3)
        slow = [asyncio.create_task(client.ask(bytes(900), 60.0)) for _ in range(8)]
        await asyncio.sleep(0.05)
        status, body, headers = await client.ask(bytes(900))
        assert status == 503
        assert body == {"error": "too many bodies are being sent; try again later"}
        assert headers[b"retry-after"] == b"1"
        await asyncio.gather(*slow)
        assert (await client.ask(bytes(900)))[0] == 200

    run(scenario)


def test_clients_that_leave_get_nothing() -> None:
    async def scenario() -> None:
        client = Client()
        assert (await client.ask(b"ab", None))[0] == 0
        assert client.reached == 0

    run(scenario)


def test_an_error_of_this_package_is_logged_and_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        status, body, _ = await Client().ask(b"abc")
        assert status == 500
        assert body == {"error": "the server made a mistake; its log says more"}

    run(scenario)
    assert "POST /x failed" in caplog.text
    assert "a bug" in caplog.text
