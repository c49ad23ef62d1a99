"""Repeated measurements in benchmarks: taking turns, steps of networks, and statistics."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from pacavit.data import Batch
from pacavit.engine import optim, system
from pacavit.tasks import Task

__all__ = ["compare_speed", "inference", "quartiles", "ratios", "take_turns", "training_step"]


def quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [round(value, 3) for value in statistics.quantiles(values, n=4)]


def ratios(reference: Sequence[float], seconds: Sequence[float]) -> list[float]:
    """Quartiles over the rounds of the reference's time over another's."""
    return quartiles([first / own for first, own in zip(reference, seconds, strict=True)])


def take_turns(
    steps: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int,
    contexts: Sequence[Callable[[], AbstractContextManager[object]]] = (),
) -> dict[str, list[float]]:
    """Seconds of each step by round, without the warm-up; in every round each is run once.

    Args:
        steps: by name.
        rounds: that are measured.
        warm_up: rounds before them.
        contexts: are entered anew for every step: autocast keeps casts of weights until it ends.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(warm_up + rounds):
        for name, step in steps.items():
            with ExitStack() as stack:
                for context in contexts:
                    stack.enter_context(context())
                start = time.perf_counter()
                step()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - start
            if number >= warm_up:
                times[name].append(seconds)
    return times


def training_step(task: Task, batch: Batch, clip: float | None) -> Callable[[], object]:
    """A step of training: losses, gradients, clipping and AdamW."""
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-4, fused=True)
    optim.set_lr(optimizer, 1e-4)

    def run() -> object:
        loss = torch.stack(list(task(batch).values())).sum()
        loss.backward()
        if clip is not None:
            clip_grad_norm_(task.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        return loss

    return run


def inference(network: Callable[[Tensor], object], images: Tensor) -> Callable[[], object]:
    """A pass without gradients."""

    def run() -> object:
        with torch.inference_mode():
            return network(images)

    return run


def compare_speed(
    steps: Mapping[str, Callable[[], object]],
    arguments: argparse.Namespace,
    facts: Mapping[str, Any],
    device: torch.device,
) -> list[dict[str, Any]]:
    """Rows with images per second of each step, and its speed over that of the last one.

    Args:
        steps: by name.
        arguments: with ``rounds`` and ``warm_up``.
        facts: of every row: "kind" ("training" or "inference"), "precision" and "batch_size".
        device: where to compute.
    """
    kernels = system.training_kernels if facts["kind"] == "training" else nullcontext
    contexts = partial(system.autocast, device, facts["precision"]), partial(kernels, device)
    times = take_turns(steps, arguments.rounds, arguments.warm_up, contexts)
    reference, size = list(times.values())[-1], facts["batch_size"]
    rows = [
        {
            "network": name,
            **facts,
            "images_per_second": quartiles([size / each for each in seconds]),
            "ratio": ratios(reference, seconds),
        }
        for name, seconds in times.items()
    ]
    for row in rows:
        print(json.dumps(row), flush=True)  # noqa: T201
    return rows
