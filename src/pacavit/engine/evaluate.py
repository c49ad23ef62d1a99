"""Measure a task on a split: numbers only; pictures and files are made elsewhere."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple, TypeAlias

import torch
from rich.progress import track
from torch import Tensor

from pacavit.data import Batch, Loader, describe_broken
from pacavit.engine import system
from pacavit.engine.distributed import World
from pacavit.errors import DataError
from pacavit.tasks import ClassificationTask, Task

__all__ = ["ClassScores", "Evaluation", "Measurement", "Watch", "evaluate", "measure"]

Watch: TypeAlias = Callable[[Any, Batch], None]
"""Is shown every prediction of a task, with the batch it is for."""


class Measurement(NamedTuple):
    """What any task scores on a split.

    Attributes:
        metrics: the task's own, on the CPU.
        num_images: images seen.
        images_per_second: of input pipeline, network and metrics together.
    """

    metrics: dict[str, Tensor]
    num_images: int
    images_per_second: float

    def scalars(self) -> dict[str, float]:
        """Those metrics that are single numbers."""
        return {name: value.item() for name, value in self.metrics.items() if value.ndim == 0}


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class; ``support`` is its number of images."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a classifier scores on a split.

    Attributes:
        num_images: images seen.
        accuracy: fraction of images whose most probable class is the true one.
        loss: mean negative log-probability of the true class.
        precision_macro: mean over classes, as for recall and F1.
        precision_weighted: mean over classes, weighted by their images, as for recall and F1.
        per_class: one row a class, in label order.
        confusion: (K, K) int64 counts, true classes as rows, predicted ones as columns.
        images_per_second: throughput, a warm-up batch excluded.
        other_scores: single numbers that the task measures beside these, by name:
            ``calibration_error`` and, for more than five classes, ``top5_accuracy``.
    """

    num_images: int
    accuracy: float
    loss: float
    precision_macro: float
    recall_macro: float
    f1_macro: float
    precision_weighted: float
    recall_weighted: float
    f1_weighted: float
    per_class: tuple[ClassScores, ...]
    confusion: Tensor
    images_per_second: float
    other_scores: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self) | {"confusion": self.confusion.tolist()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evaluation:
        """What ``to_dict`` gave, again; other keys are left out.

        Raises:
            KeyError, TypeError, ValueError: a number is missing or is none.
        """
        other: dict[str, Any] = {
            "per_class": tuple(ClassScores(**row) for row in data["per_class"]),
            "confusion": torch.tensor(data["confusion"], dtype=torch.int64),
            "num_images": int(data["num_images"]),
            "other_scores": {name: float(value) for name, value in data["other_scores"].items()},
        }
        scores = (each.name for each in fields(cls) if each.name not in other)
        return cls(**other | {name: float(data[name]) for name in scores})


def evaluate(
    task: ClassificationTask,
    loader: Loader,
    class_names: Sequence[str],
    *,
    device: torch.device | str = "cpu",
    watch: Watch | None = None,
    progress: bool = False,
) -> Evaluation:
    """Score a classifier on a split, in fp32.

    Args:
        task: is moved to ``device`` and set to evaluation mode.
        loader: batches of the split, see ``build.eval_loader``.
        class_names: K names, in label order.
        device: where to compute.
        watch: is shown every prediction, batch by batch.
        progress: show a progress bar.

    Raises:
        DataError: the split has labels beyond the classes of the task.
    """
    highest = int(loader.images.labels.max())
    if highest >= len(class_names):
        raise DataError(
            f"the images have labels up to {highest}, "
            f"but the model knows {len(class_names)} classes"
        )
    device = torch.device(device)
    measured = measure(
        task.to(device), loader, device, warm_up=True, watch=watch, progress=progress
    )
    metrics, confusion = measured.metrics, measured.metrics["confusion"]
    rows = zip(
        class_names,
        *(metrics[f"{score}_per_class"].tolist() for score in ("precision", "recall", "f1")),
        confusion.sum(1).tolist(),
        strict=True,
    )
    scalars = measured.scalars()
    named = {
        each.name: scalars.pop(each.name) for each in fields(Evaluation) if each.name in scalars
    }
    return Evaluation(
        num_images=measured.num_images,
        per_class=tuple(ClassScores(*row) for row in rows),
        confusion=confusion,
        images_per_second=measured.images_per_second,
        other_scores=scalars,
        **named,
    )


def measure(
    task: Task,
    loader: Loader,
    device: torch.device,
    *,
    precision: str = "fp32",
    warm_up: bool = False,
    watch: Watch | None = None,
    progress: bool = False,
    world: World | None = None,
) -> Measurement:
    """Update a task's metrics with its predictions for every batch.

    Args:
        task: on ``device``; is left in evaluation mode.
        loader: batches of the split.
        device: where to compute.
        precision: of the arithmetic, "fp32" or "bf16".
        warm_up: predict the first batch once beforehand, so that the throughput is that of a
            running system.
        watch: is shown every prediction, batch by batch.
        progress: show a progress bar.
        world: the processes that measure together, each with its part of the loader's batches;
            None: this one alone. The metrics are those of all images.

    Raises:
        DataError: no image can be read, by any process.
    """
    world = world or World()
    task.eval()
    metrics = task.metrics().to(device)
    with system.autocast(device, precision):
        if warm_up:
            task.predict(_to_device(next(loader.epoch(0)), device).images)
        start, num_images = time.perf_counter(), 0
        for batch in track(
            loader.epoch(0), "evaluating", len(loader), disable=not progress, transient=True
        ):
            batch = _to_device(batch, device)
            if not len(batch.labels):
                # Its images are broken; but processes with a part of a network compute together.
                task.predict(batch.images.new_zeros(1, *batch.images.shape[1:]))
                continue
            prediction = task.predict(batch.images)
            metrics.update(prediction, batch.labels)
            if watch is not None:
                watch(prediction, batch)
            num_images += len(batch.labels)
        if not any(world.any(num_images > 0)):
            broken = describe_broken(world.merge(loader.images.broken))
            raise world.shared(DataError(f"no usable image to measure with: {broken}"))
        with warnings.catch_warnings():
            # All is well where only other processes have images.
            warnings.filterwarnings("ignore", "The ``compute`` method of metric .* before")
            # Fetching the results waits until the device has finished.
            results = {name: value.cpu() for name, value in metrics.compute().items()}
    return Measurement(results, num_images, num_images / (time.perf_counter() - start))


def _to_device(batch: Batch, device: torch.device) -> Batch:
    return Batch(*(tensor.to(device, non_blocking=True) for tensor in batch))
