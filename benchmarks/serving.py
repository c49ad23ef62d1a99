"""How fast and how reliable ``pacavit serve`` is, beside a bare loop of batches.

::

    python benchmarks/serving.py

For each model and each number of images in a request: rounds in which the server and a loop of
``Predictor`` over the same images take turns; ``ratio`` is the loop's time over the server's. The
clients share the machine with the server. Then requests of which 5 % are malformed, whose answers
are compared with those of the loop; memory over many requests; half-sent bodies beside other
requests; and the kill of a worker under load. The result goes to
``benchmarks/results/serving.json``. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from serving_load import Outcome, Request, Server, malformed, send, serving, tensor_request

from pacavit.bench.turns import quartiles, ratios, take_turns
from pacavit.engine.predictor import Predictor
from pacavit.engine.run.environment import environment
from pacavit.engine.weights.load import load_model

RESULTS = Path(__file__).parent / "results" / "serving.json"
MALFORMED = 0.05  # fraction of the requests
POOL = 64  # different images


def main() -> None:
    """Read the command line, measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["cifar10_nano_conv"])
    parser.add_argument("--size", type=int, default=32, help="sides of the images in pixels")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 16], help="in a request")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--long", type=int, default=10_000, help="requests for the memory")
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--half-sent", type=int, default=100, help="bodies that never end")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    for model in arguments.models:
        rows.append(measure(model, arguments))
        print(json.dumps(rows[-1]))  # noqa: T201
    result = {
        "command": "python benchmarks/serving.py",
        "requests": arguments.requests,
        "in_flight": arguments.in_flight,
        "malformed": MALFORMED,
        "size": arguments.size,
        "rows": rows,
        "load": os.getloadavg()[0],
        "environment": environment(torch.device("cpu")),
    }
    if arguments.models != ["cifar10_nano_conv"]:
        result["command"] += f" --models {' '.join(arguments.models)} --size {arguments.size}"
    arguments.results.parent.mkdir(exist_ok=True)
    arguments.results.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def measure(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures of a model."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (POOL, 3, arguments.size, arguments.size)).astype(np.uint8)
    predictor = Predictor(load_model(model, optimize=True), batch_size=16)  # as the server has it
    pixels = [image.transpose(1, 2, 0) for image in images]
    records = [each.record for each in predictor(pixels)]
    expected = np.stack([record.probabilities.numpy() for record in records])

    def requests(number: int, size: int) -> list[Request]:
        starts = [(position * size) % (POOL - size + 1) for position in range(number)]
        parts = [slice(start, start + size) for start in starts]
        return [tensor_request(Path(model).stem, images[part], expected[part]) for part in parts]

    found: dict[str, Any] = {"model": Path(model).stem, "speed": []}
    room = 2 * arguments.in_flight * max(arguments.images)  # nothing is refused in the rounds
    with serving(model, "--timeout", "10", "--queue", str(room)) as server:
        for size in arguments.images:
            sent = requests(max(1, arguments.requests // size), size)
            found["speed"].append(speed(server, sent, size, predictor, pixels, arguments))
        single = requests(arguments.requests, 1)
        found["mixed"] = mixed(server, single, arguments.in_flight)
        found["half_sent"] = half_sent(server, single, arguments)
        before = server.memory_mb()
        send(server.port, requests(arguments.long, 1), arguments.in_flight)
        found["memory"] = {
            "requests": arguments.long,
            "before_mb": round(before),
            "after_mb": round(server.memory_mb()),
        }
    with serving(model, "--workers", "2") as server:
        found["killed"] = killed(server, single, arguments.in_flight)
    return found


def speed(
    server: Server,
    sent: Sequence[Request],
    size: int,
    predictor: Predictor,
    pixels: Sequence[NDArray[np.uint8]],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """The server and a loop of batches by turns, over as many images."""
    number = len(sent) * size
    outcomes: list[Outcome] = []

    def served() -> None:
        outcomes.extend(send(server.port, sent, arguments.in_flight)[0])

    def loop() -> None:
        for _ in predictor.stream(pixels[position % POOL] for position in range(number)):
            pass

    seconds = take_turns({"loop": loop, "server": served}, arguments.rounds, 1)
    found = statuses(outcomes)
    if set(found) != {"200"}:
        raise SystemExit(f"error: not all requests of {size} images were answered: {found}")
    milliseconds = [1000 * outcome.seconds for outcome in outcomes[len(sent) :]]
    return {
        "images": size,
        "ratio": ratios(seconds["loop"], seconds["server"]),
        "images_per_second": quartiles([number / each for each in seconds["server"]]),
        "loop_images_per_second": quartiles([number / each for each in seconds["loop"]]),
        **percentiles(milliseconds),
    }


def mixed(server: Server, sent: Sequence[Request], in_flight: int) -> dict[str, Any]:
    """Requests of which some are malformed."""
    draw = random.Random(0)
    chosen = [malformed(each, draw) if draw.random() < MALFORMED else each for each in sent]
    outcomes, _ = send(server.port, chosen, in_flight)
    return {
        "statuses": statuses(outcomes),
        "malformed": sum(outcome.malformed for outcome in outcomes),
        "malformed_answered_with_4xx": sum(
            outcome.malformed and 400 <= outcome.status < 500 for outcome in outcomes
        ),
        "largest_difference": max(outcome.difference for outcome in outcomes),
    }


def half_sent(
    server: Server, sent: Sequence[Request], arguments: argparse.Namespace
) -> dict[str, Any]:
    """The same requests without and with clients that stop in the middle of a body."""
    before, _ = send(server.port, sent, arguments.in_flight)
    with ExitStack() as stack:
        for _ in range(arguments.half_sent):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            client.sendall(
                b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nhalf"
            )
        during, _ = send(server.port, sent, arguments.in_flight)
    return {
        "clients": arguments.half_sent,
        "statuses": statuses(during),
        "before": percentiles([1000 * outcome.seconds for outcome in before]),
        "during": percentiles([1000 * outcome.seconds for outcome in during]),
    }


def killed(server: Server, sent: Sequence[Request], in_flight: int) -> dict[str, Any]:
    """Kill a worker in the middle of requests; those that it had lose their connection."""
    while len(server.children) < 2:
        time.sleep(0.05)
    outcomes: list[Outcome] = []
    clients = threading.Thread(
        target=lambda: outcomes.extend(send(server.port, sent, in_flight)[0])
    )
    clients.start()
    time.sleep(0.2)
    os.kill(server.children[0], signal.SIGKILL)
    clients.join()
    later, _ = send(server.port, sent[:in_flight], in_flight)
    return {
        "statuses": statuses(outcomes),
        "lost": sum(outcome.status == 0 for outcome in outcomes),
        "in_flight": in_flight,
        "statuses_later": statuses(later),
    }


def statuses(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Number of outcomes by status; "lost" for broken connections."""
    counts = Counter(str(outcome.status or "lost") for outcome in outcomes)
    return dict(sorted(counts.items()))


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    return {
        "p50_ms": round(statistics.median(milliseconds), 2),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 2),
    }


if __name__ == "__main__":
    main()
