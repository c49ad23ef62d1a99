"""A server in a process of its own, and clients that keep many requests in flight."""

from __future__ import annotations

import http.client
import json
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Outcome", "Request", "Server", "malformed", "send", "serving", "tensor_request"]

_HEADER = "Inference-Header-Content-Length"


class Request(NamedTuple):
    """A request, and the probabilities that it should return; None if it is malformed."""

    path: str
    body: bytes
    headers: dict[str, str]
    expected: NDArray[np.float32] | None


class Outcome(NamedTuple):
    """What came of a request.

    Attributes:
        status: of HTTP; 0 if the connection broke.
        seconds: until the answer.
        malformed: whether the request was.
        difference: largest absolute one to the expected probabilities; 0 for errors.
    """

    status: int
    seconds: float
    malformed: bool
    difference: float


class Server(NamedTuple):
    """A running server."""

    process: subprocess.Popen[str]
    port: int

    @property
    def children(self) -> list[int]:
        """The worker processes, which Linux lists."""
        pid = self.process.pid
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        lines = {int(child): Path(f"/proc/{child}/cmdline").read_text() for child in found}
        return [child for child, line in lines.items() if "spawn_main" in line]

    def memory_mb(self) -> float:
        """Resident memory of the server in MB, of all its processes."""
        status = [
            Path(f"/proc/{pid}/status").read_text() for pid in (self.process.pid, *self.children)
        ]
        lines = [line for text in status for line in text.splitlines() if line.startswith("VmRSS")]
        return sum(int(line.split()[1]) for line in lines) / 1000


@contextmanager
def serving(model: str, *words: str) -> Iterator[Server]:
    """Start ``pacavit serve``, wait until it is ready, and end it."""
    command = [sys.executable, "-m", "pacavit_cli", "serve", model, "--port", "0", *words]
    with subprocess.Popen(  # noqa: S603 (the command above)
        command, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if "127.0.0.1:" not in line:
                raise SystemExit(f"the server did not start: {line}")
            port = int(line.split("127.0.0.1:")[1].split("/")[0])
            ready = Request("/health/ready", b"", {}, None)
            while send(port, [ready], 1)[0][0].status != 200:
                time.sleep(0.05)
            yield Server(process, port)
        finally:
            process.send_signal(signal.SIGTERM)


def send(port: int, requests: Sequence[Request], in_flight: int) -> tuple[list[Outcome], float]:
    """Send requests, with as many clients as are to be in flight.

    Returns:
        The outcomes in any order, and the seconds that all of them took.
    """
    waiting: queue.SimpleQueue[Request] = queue.SimpleQueue()
    for request in requests:
        waiting.put(request)
    outcomes: list[Outcome] = []

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while True:
            try:
                request = waiting.get_nowait()
            except queue.Empty:
                break
            outcomes.append(_outcome(connection, request))
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(in_flight)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes, time.perf_counter() - start


def _outcome(connection: http.client.HTTPConnection, request: Request) -> Outcome:
    start = time.perf_counter()
    difference = 0.0
    try:
        method = "POST" if request.body or "infer" in request.path else "GET"
        connection.request(method, request.path, request.body, request.headers)
        answer = connection.getresponse()
        body, status = answer.read(), answer.status
        if status == 200 and request.expected is not None:
            length = int(answer.headers[_HEADER])
            found = np.frombuffer(body[length:], np.float32).reshape(request.expected.shape)
            difference = float(np.abs(found - request.expected).max())
    except (OSError, http.client.HTTPException):
        connection.close()
        status = 0
    return Outcome(status, time.perf_counter() - start, request.expected is None, difference)


def tensor_request(model: str, images: NDArray[np.uint8], expected: NDArray[np.float32]) -> Request:
    """A request of the protocol V2 with binary data.

    Args:
        model: its name.
        images: (B, 3, H, W).
        expected: probabilities (B, classes).
    """
    size = {"binary_data_size": images.nbytes}
    head = {
        "inputs": [
            {"name": "images", "shape": images.shape, "datatype": "UINT8", "parameters": size}
        ],
        "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
    }
    text = json.dumps(head).encode()
    headers = {_HEADER: str(len(text)), "Content-Type": "application/octet-stream"}
    return Request(f"/v2/models/{model}/infer", text + images.tobytes(), headers, expected)


def malformed(request: Request, draw: random.Random) -> Request:
    """A request with something wrong, chosen at random."""
    path, body, headers, _ = request
    wrong = [
        Request(path, body[:-100], headers, None),
        Request(path, body[100:], headers, None),
        Request(path, b"", headers, None),
        Request(path, body.replace(b"UINT8", b"FP64 "), headers, None),
        Request(path, body.replace(b'"images"', b'"pixels"'), headers, None),
        Request(path, body, {}, None),
        Request(path, body, headers | {_HEADER: "-1"}, None),
        Request(path.replace("/infer", "x/infer"), body, headers, None),
        Request("/predict", body, {"Content-Type": "image/png"}, None),
        Request("/predict", body, {"Content-Type": "multipart/form-data; boundary=x"}, None),
        Request("/predict", body, {"Content-Encoding": "gzip"}, None),
    ]
    return draw.choice(wrong)
