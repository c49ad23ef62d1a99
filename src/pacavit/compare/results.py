"""What the runs of a comparison scored, row by row, and how sure the differences are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, NamedTuple

import numpy as np

from pacavit.engine import LoadedModel
from pacavit.engine.diagnostics import PREFIX
from pacavit.engine.evaluate import Evaluation
from pacavit.engine.run.log import read_metrics
from pacavit.errors import CheckpointError
from pacavit.models import count_macs
from pacavit.report.evaluation import read_evaluation, weights_digest
from pacavit.report.publishing.card import input_size
from pacavit.report.run_page import evaluation_folder
from pacavit.report.tasks import report_of
from pacavit.report.tasks.base import ImagesCorrect
from pacavit.utils.statistics import Interval

__all__ = ["Comparison", "Row", "RunResult", "Spread", "compare_runs", "read_run"]

SCORES = {
    "accuracy": "accuracy",
    "precision": "precision_macro",
    "recall": "recall_macro",
    "F1": "f1_macro",
}
_CONFIDENCE = 1.96  # standard errors, 95 %


@dataclass(frozen=True, eq=False)
class RunResult:
    """One run, trained and measured on the test images.

    Attributes:
        value: its row, the value of the field that is compared.
        seed: of the training.
        folder: of the run.
        evaluation: on the test images.
        images: of the test, each with its true class, in stored order.
        correct: (images,) bool, which of them were named right.
        epochs: rows of ``metrics.jsonl``.
        parameters: of the network.
        macs: multiply-accumulates for an image, without the rounds of classic clusterings.
    """

    value: str
    seed: int
    folder: Path
    evaluation: Evaluation
    images: Sequence[tuple[str, str]]
    correct: np.ndarray
    epochs: Sequence[Mapping[str, Any]]
    parameters: int
    macs: int

    @property
    def training_speed(self) -> float:
        """Images a second in training, the median of the epochs."""
        return median(row["images_per_second"] for row in self.epochs)

    @property
    def minutes(self) -> float:
        """The training took."""
        return self.epochs[-1]["elapsed"] / 60

    def clusters(self, name: str) -> float | None:
        """A statistic of the clusters after the last epoch; None where there are none."""
        return self.epochs[-1].get(f"{PREFIX}{name}")


class Spread(NamedTuple):
    """A mean over seeds and its standard deviation, which a single seed has not."""

    mean: float
    deviation: float | None


@dataclass(frozen=True, eq=False)
class Row:
    """All runs of one value.

    Attributes:
        value: of the field that is compared; of further fields FIELD=VALUE.
        runs: one a seed.
        difference: of accuracy to the first row, on the same images; None in the first row. Its
            interval is that of McNemar's test and says nothing of other seeds.
    """

    value: str
    runs: Sequence[RunResult]
    difference: Interval | None

    def score(self, name: str) -> Spread:
        """One of ``SCORES`` over the seeds."""
        return spread([getattr(run.evaluation, SCORES[name]) for run in self.runs])

    def clusters(self, name: str) -> Spread | None:
        """A statistic of the clusters over the seeds; None where there are none."""
        values = [run.clusters(name) for run in self.runs]
        known = [value for value in values if value is not None]
        return spread(known) if known else None


@dataclass(frozen=True, eq=False)
class Comparison:
    """One recipe with several values of one field, or of some.

    Attributes:
        fields: that are compared.
        recipe: its name.
        command: that makes it.
        rows: one a value, in the order in which they were given.
    """

    fields: Sequence[str]
    recipe: str
    command: str
    rows: Sequence[Row]


def read_run(value: str, seed: int, folder: Path, model: LoadedModel) -> RunResult | None:
    """A run that is trained and measured; None if it is not measured yet.

    Args:
        value: its row, the value of the field that is compared.
        seed: of the training.
        folder: of the run.
        model: loaded from it.

    Raises:
        CheckpointError: a file of the run is broken.
    """
    measured = evaluation_folder(folder, "test")
    stored = read_evaluation(measured, weights_digest(model))
    if stored is None:
        return None
    network, epochs = model.task.model, read_metrics(folder)
    if not epochs:
        raise CheckpointError(f"{folder} holds no numbers of its epochs; train it again")
    images, correct = _images_correct(stored.evaluation.task, measured)
    if len(correct) != stored.evaluation.num_images:
        raise CheckpointError(f"{measured} is not complete; remove it, and evaluate {folder} again")
    return RunResult(
        value,
        seed,
        folder,
        stored.evaluation,
        images,
        correct,
        epochs,
        sum(parameter.numel() for parameter in network.parameters()),
        count_macs(network, input_size(model)),
    )


def compare_runs(
    fields: Sequence[str], recipe: str, command: str, runs: Sequence[RunResult]
) -> Comparison:
    """Rows of all runs by value, in order of appearance.

    Raises:
        CheckpointError: the runs were not measured on the same images.
    """
    values = list(dict.fromkeys(run.value for run in runs))
    groups = [[run for run in runs if run.value == value] for value in values]
    rows = [
        Row(value, group, difference(groups[0], group) if number else None)
        for number, (value, group) in enumerate(zip(values, groups, strict=True))
    ]
    return Comparison(fields, recipe, command, rows)


def difference(first: Sequence[RunResult], second: Sequence[RunResult]) -> Interval:
    """Accuracy of the second group minus that of the first, image by image.

    Of one run each, this is McNemar's: the images that both name right, or both wrong, are no part
    of the variance. Of several, an image counts with its mean over the seeds.
    """
    for run in (*first, *second):
        if run.images != first[0].images:
            raise CheckpointError(
                f"{run.folder} and {first[0].folder} were measured on different images; "
                "evaluate them on the same data"
            )
    one, other = (np.mean([run.correct for run in group], axis=0) for group in (first, second))
    change = other - one
    mean = float(change.mean())
    margin = _CONFIDENCE * float(change.std()) / math.sqrt(len(change))
    return Interval(mean, mean - margin, mean + margin)


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation."""
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None)


def _images_correct(task: str, folder: Path) -> ImagesCorrect:
    try:
        found = report_of(task).images_correct(folder)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"the predictions in {folder} cannot be read; evaluate the run again"
        ) from error
    if found is None:
        raise CheckpointError(f"runs of the task {task!r} cannot be compared image by image")
    return found
