"""Fit the temperature of a trained task on its validation images."""

from __future__ import annotations

import torch
from torch import Tensor

from pacavit.data import Batch, Loader
from pacavit.engine.distributed import World
from pacavit.engine.evaluate import measure
from pacavit.tasks import Task
from pacavit.tasks.classification import (
    Calibration,
    Predictions,
    fit_temperature,
    measure_calibration,
)

__all__ = ["calibrate"]


def calibrate(
    task: Task,
    loader: Loader,
    num_classes: int,
    *,
    device: torch.device,
    world: World | None = None,
) -> Calibration | str:
    """Fit the temperature of a task that ``calibrates``, in fp32, and set it.

    Args:
        task: on ``device``, with a temperature of 1; is left in evaluation mode.
        loader: batches of the validation split.
        num_classes: of the data.
        device: where to compute.
        world: the processes that compute together, each with its shard of the loader's batches.
            All have to call this, and find the same temperature.

    Returns:
        The calibration; if the temperature stays 1, a line that says why.

    Raises:
        DataError: no image can be read, by any process.
    """
    world = world or World()
    collected = _Collected(num_classes)
    measure(task, loader, device, observe=collected, world=world)
    indices, logits, labels = (world.concatenate(torch.cat(rows)) for rows in collected.columns)
    # In the order of the images, so that sums do not depend on the number of processes.
    order = indices.argsort()
    logits, labels = logits[order], labels[order]
    temperature = fit_temperature(logits, labels)
    if temperature is None:
        correct = bool((logits.argmax(1) == labels).all())
        reason = "all are classified correctly" if correct else "the network has learned too little"
        return f"temperature 1: no other fits the {len(labels):,} validation images, {reason}"
    task.temperature = temperature
    return measure_calibration(logits, labels, temperature)


class _Collected:
    """Observer that keeps indices, logits and labels of all images, on the CPU."""

    def __init__(self, num_classes: int) -> None:
        # A process may get no image.
        self.columns: tuple[list[Tensor], list[Tensor], list[Tensor]] = (
            [torch.empty(0, dtype=torch.int64)],
            [torch.empty(0, num_classes)],
            [torch.empty(0, dtype=torch.int64)],
        )

    def __call__(self, predictions: Predictions, batch: Batch) -> None:
        values = (batch.indices, predictions.logits, batch.targets)
        for column, value in zip(self.columns, values, strict=True):
            column.append(value.cpu())
