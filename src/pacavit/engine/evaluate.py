"""Evaluate a task on a split. Pictures and files are made in ``pacavit.report``."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from rich.progress import track
from torch import Tensor

from pacavit.data import Batch, Loader, describe_broken
from pacavit.engine import system
from pacavit.engine.distributed import World
from pacavit.errors import DataError
from pacavit.tasks import Task

__all__ = [
    "ClassScores",
    "Evaluation",
    "Measurement",
    "Observer",
    "as_evaluation",
    "evaluate",
    "measure",
    "summarize",
]

Observer: TypeAlias = Callable[[Any, Batch], None]
"""Is called with the predictions for each batch, and the batch."""

_PER_CLASS = "_per_class"


class Measurement(NamedTuple):
    """The metrics of a task on a split.

    Attributes:
        metrics: results of the task's metrics, on the CPU.
        num_images: number of images.
        images_per_second: of input pipeline, network and metrics together.
    """

    metrics: dict[str, Tensor]
    num_images: int
    images_per_second: float

    def scalars(self) -> dict[str, float]:
        """The metrics that are single numbers."""
        return {name: value.item() for name, value in self.metrics.items() if value.ndim == 0}


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class or category; each is an attribute too, as in ``row.f1``.

    Attributes:
        name: of the class.
        scores: by name, in the order of the table's columns; NaN if a score is not defined, for
            example for a class without images.
        support: number of its images, or of the items that the task counts.
    """

    name: str
    scores: Mapping[str, float]
    support: int

    def __getattr__(self, name: str) -> float:
        return _from_mappings(self, name, "scores")

    def to_dict(self) -> dict[str, Any]:
        """Plain data: name, scores and support side by side."""
        scores = {name: None if isnan(value) else value for name, value in self.scores.items()}
        return {"name": self.name, **scores, "support": self.support}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of a task on a split; scores and arrays are attributes too, as in ``.accuracy``.

    Attributes:
        task: registered name.
        scores: single numbers by name.
        per_class: one row per class or category, in label order.
        arrays: all other results by name, for example a confusion matrix.
        num_images: number of images.
        images_per_second: throughput, without a warm-up batch; NaN where no model was run.
        folder: where ``pacavit.evaluate`` has saved it; None if nowhere.
        corruptions: accuracy on corrupted images by kind, at severities 1 to 5; empty if that was
            not measured.
    """

    task: str
    scores: Mapping[str, float]
    per_class: tuple[ClassScores, ...]
    arrays: Mapping[str, Tensor]
    num_images: int
    images_per_second: float
    folder: Path | None = None
    corruptions: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def corruption_accuracy(self) -> float:
        """Mean accuracy over all kinds and severities of corruptions; NaN without any."""
        values = [value for each in self.corruptions.values() for value in each]
        return sum(values) / len(values) if values else nan

    def __getattr__(self, name: str) -> Any:
        return _from_mappings(self, name, "scores", "arrays")

    def to_dict(self) -> dict[str, Any]:
        """Plain data without the folder, ready for JSON."""
        corruptions = {
            "corruptions": {
                "mean_accuracy": self.corruption_accuracy,
                "accuracy": {name: list(values) for name, values in self.corruptions.items()},
            }
        }
        return {
            "task": self.task,
            "num_images": self.num_images,
            "images_per_second": None if isnan(self.images_per_second) else self.images_per_second,
            "scores": dict(self.scores),
            "per_class": [row.to_dict() for row in self.per_class],
            "arrays": {name: value.tolist() for name, value in self.arrays.items()},
            **(corruptions if self.corruptions else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evaluation:
        """The inverse of ``to_dict``; unknown keys are ignored.

        Also reads the layout of release 0.1, which supported classification only.

        Raises:
            KeyError, TypeError, ValueError: a number is missing, or is not a number.
        """
        if "scores" not in data and "other_scores" in data:
            data = _from_first_layout(data)
        speed = data["images_per_second"]
        return cls(
            task=str(data["task"]),
            scores={str(name): float(value) for name, value in data["scores"].items()},
            per_class=tuple(_row(row) for row in data["per_class"]),
            arrays={str(name): torch.tensor(value) for name, value in data["arrays"].items()},
            num_images=int(data["num_images"]),
            images_per_second=nan if speed is None else float(speed),
            corruptions={
                str(name): tuple(map(float, values))
                for name, values in data.get("corruptions", {}).get("accuracy", {}).items()
            },
        )


def evaluate(
    task: Task,
    loader: Loader,
    class_names: Sequence[str],
    *,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    observe: Observer | None = None,
    progress: bool = False,
) -> Evaluation:
    """Evaluate a task on a split.

    Args:
        task: is moved to ``device`` and set to evaluation mode.
        loader: batches of the split, see ``build.eval_loader``.
        class_names: K names, in label order.
        device: where to compute.
        precision: of the arithmetic, "fp32" or "bf16".
        observe: is called with the predictions for each batch.
        progress: show a progress bar.

    Raises:
        DataError: the targets of the split do not fit the task.
    """
    task.check_data(loader.images)
    device = torch.device(device)
    measured = measure(
        task.to(device),
        loader,
        device,
        precision=precision,
        warm_up=True,
        observe=observe,
        progress=progress,
    )
    return summarize(task, measured, class_names)


def summarize(task: Task, measured: Measurement, class_names: Sequence[str]) -> Evaluation:
    """Scores, rows and arrays of measured metrics.

    Args:
        task: that they are of.
        measured: on a split.
        class_names: K names, in label order.
    """
    return as_evaluation(task.config.name, measured, task.summarize(measured.metrics), class_names)


def as_evaluation(
    task: str, measured: Measurement, results: Mapping[str, Tensor], class_names: Sequence[str]
) -> Evaluation:
    """Sort results into scores, rows and arrays, see ``Task.summarize``.

    Args:
        task: registered name.
        measured: on a split.
        results: that the task keeps of its metrics.
        class_names: K names, in label order.
    """
    columns = {
        key.removesuffix(_PER_CLASS): values.tolist()
        for key, values in results.items()
        if key.endswith(_PER_CLASS)
    }
    support = columns.pop("support", [0] * len(class_names))
    rows = [
        ClassScores(class_name, {key: values[label] for key, values in columns.items()}, number)
        for label, (class_name, number) in enumerate(zip(class_names, support, strict=True))
    ]
    return Evaluation(
        task=task,
        scores={key: value.item() for key, value in results.items() if value.ndim == 0},
        per_class=tuple(rows) if columns else (),
        arrays={
            key: value
            for key, value in results.items()
            if value.ndim > 0 and not key.endswith(_PER_CLASS)
        },
        num_images=measured.num_images,
        images_per_second=measured.images_per_second,
    )


def measure(
    task: Task,
    loader: Loader,
    device: torch.device,
    *,
    precision: str = "fp32",
    warm_up: bool = False,
    observe: Observer | None = None,
    progress: bool = False,
    world: World | None = None,
) -> Measurement:
    """Update a task's metrics with its predictions for every batch.

    Args:
        task: on ``device``; is left in evaluation mode.
        loader: batches of the split.
        device: where to compute.
        precision: of the arithmetic, "fp32" or "bf16".
        warm_up: predict the first batch once before timing starts.
        observe: is called with the predictions for each batch.
        progress: show a progress bar.
        world: the processes that evaluate together, each with its shard of the loader's batches;
            None: this process alone. The metrics are those of all images.

    Raises:
        DataError: no image can be read, by any process.
    """
    world = world or World()
    task.eval()
    metrics = system.put_metrics(task.metrics(), device)
    with system.autocast(device, precision):
        if warm_up:
            task.predict(next(loader.epoch(0)).to(device))
        start, num_images = time.perf_counter(), 0
        for batch in track(
            loader.epoch(0), "evaluating", len(loader), disable=not progress, transient=True
        ):
            batch = batch.to(device)
            if not len(batch):
                # All its images are broken, but processes of a sharded network compute together.
                blank = batch.images.new_zeros(1, *batch.images.shape[1:])
                task.predict(Batch.unlabeled(blank))
                continue
            predictions = task.predict(batch)
            metrics.update(predictions, batch.targets)
            if observe is not None:
                observe(predictions, batch)
            num_images += len(batch)
        if not any(world.any(num_images > 0)):
            broken = describe_broken(world.merge(loader.images.broken))
            raise world.shared(DataError(f"no usable image to measure with: {broken}"))
        with warnings.catch_warnings():
            # torchmetrics warns in processes without images, which is fine if others have some.
            warnings.filterwarnings("ignore", "The ``compute`` method of metric .* before")
            # Copying the results to the CPU waits until the device has finished.
            results = {name: value.cpu() for name, value in metrics.compute().items()}
    return Measurement(results, num_images, num_images / (time.perf_counter() - start))


def _from_mappings(owner: Any, name: str, *mappings: str) -> Any:
    """An entry of one of an object's mappings, as an attribute."""
    for mapping in mappings:
        entries = owner.__dict__.get(mapping, {})
        if name in entries:
            return entries[name]
    raise AttributeError(f"{type(owner).__name__} has no attribute or score {name!r}")


def _from_first_layout(data: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the classification results of release 0.1 to the layout of ``Evaluation.to_dict``."""
    kinds = ("precision", "recall", "f1")
    means = [f"{kind}_{average}" for average in ("macro", "weighted") for kind in kinds]
    scores = {name: data[name] for name in ("accuracy", "loss", *means)}
    return {
        **data,
        "task": "classification",
        "scores": scores | data["other_scores"],
        "arrays": {"confusion": data["confusion"]},
    }


def _row(data: Mapping[str, Any]) -> ClassScores:
    """The inverse of ``ClassScores.to_dict``."""
    scores = {
        name: nan if value is None else float(value)
        for name, value in data.items()
        if name not in _ROW_FIELDS
    }
    return ClassScores(str(data["name"]), scores, int(data["support"]))


_ROW_FIELDS = frozenset({"name", "support"})
