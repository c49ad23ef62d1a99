"""Steps of networks for training and inference, whose speeds benchmarks compare."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from pacavit.bench.turns import quartiles, ratios, take_turns
from pacavit.data import Batch
from pacavit.engine import optim, system
from pacavit.tasks import Task

__all__ = ["compare_speed", "inference", "training_step"]


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
