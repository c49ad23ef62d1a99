"""The scores of the runs of a comparison by row, and the significance of their differences."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

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
from pacavit.utils.command import Command
from pacavit.utils.statistics import Interval, Spread, normal_interval, proportion_margin, spread

__all__ = ["Comparison", "Row", "RunResult", "compare_runs", "read_run"]

SCORES: Mapping[str, str] = {
    "accuracy": "accuracy",
    "precision": "precision_macro",
    "recall": "recall_macro",
    "F1": "f1_macro",
}
"""Fields of an evaluation by the name of their column; the scores of classification."""
HEADLINE = "accuracy"
"""The score of pictures, highlights and differences, a mean of ``correct`` over images."""


@dataclass(frozen=True, eq=False)
class RunResult:
    """One run, trained and evaluated on the test images.

    Attributes:
        value: label of its row, the value of the compared field.
        seed: of the training.
        folder: run folder.
        evaluation: on the test images.
        images: index and true class of each test image, in stored order.
        correct: (images,) bool, whether the top-1 class is correct.
        epochs: rows of ``metrics.jsonl``.
        parameters: number of parameters of the network.
        macs: multiply-accumulates per image, without the iterations of classic clusterings.
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
    def headline(self) -> float:
        """The headline score on the test images."""
        return self.score(HEADLINE)

    @property
    def curve(self) -> list[float]:
        """The headline score on the validation images by epoch."""
        return [row[f"val_{SCORES[HEADLINE]}"] for row in self.epochs]

    @property
    def training_speed(self) -> float:
        """Training images per second, the median over epochs."""
        return median(row["images_per_second"] for row in self.epochs)

    @property
    def minutes(self) -> float:
        """Duration of the training."""
        return self.epochs[-1]["elapsed"] / 60

    def score(self, name: str) -> float:
        """One of ``SCORES`` on the test images."""
        value: float = getattr(self.evaluation, SCORES[name])
        return value

    def clusters(self, name: str) -> float | None:
        """A statistic of the clusters after the last epoch; None for networks without clusters."""
        return self.epochs[-1].get(f"{PREFIX}{name}")


@dataclass(frozen=True, eq=False)
class Row:
    """All runs of one value.

    Attributes:
        value: label of the row: the value of the first compared field, FIELD=VALUE for others.
        runs: one per seed.
        difference: of the headline score to the first row, paired by image; None there. Its
            interval is that of McNemar's test and does not cover other seeds.
    """

    value: str
    runs: Sequence[RunResult]
    difference: Interval | None

    @property
    def headline(self) -> Spread:
        """The headline score over the seeds."""
        return self.score(HEADLINE)

    @property
    def margin(self) -> float:
        """Half the 95 % interval of the headline score over other test images."""
        return proportion_margin(self.headline.mean, self.runs[0].evaluation.num_images)

    def score(self, name: str) -> Spread:
        """One of ``SCORES`` over the seeds."""
        return spread([run.score(name) for run in self.runs])

    def clusters(self, name: str) -> Spread | None:
        """A statistic of the clusters over the seeds; None for networks without clusters."""
        values = [run.clusters(name) for run in self.runs]
        known = [value for value in values if value is not None]
        return spread(known) if known else None


@dataclass(frozen=True, eq=False)
class Comparison:
    """One recipe with several values of one or more fields.

    Attributes:
        fields: the compared fields.
        recipe: name of the recipe.
        command: repeats the comparison.
        rows: one per value, in the order given.
    """

    fields: Sequence[str]
    recipe: str
    command: Command
    rows: Sequence[Row]


def read_run(value: str, seed: int, folder: Path, model: LoadedModel) -> RunResult | None:
    """The result of a trained run; None if it has not been evaluated yet.

    Args:
        value: label of its row, the value of the compared field.
        seed: of the training.
        folder: run folder.
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
        raise CheckpointError(f"{folder} holds no metrics of its epochs; train it again")
    images, correct = _predictions(measured / "predictions.csv")
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
    fields: Sequence[str], recipe: str, command: Command, runs: Sequence[RunResult]
) -> Comparison:
    """Group runs into rows by value, in order of appearance.

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
    """Accuracy of the second group minus that of the first, paired by image.

    With one run each the interval is that of McNemar's test: images on which both are correct, or
    both incorrect, add no variance. With several runs, each image counts with its mean over seeds.

    Raises:
        CheckpointError: the runs were not measured on the same images.
    """
    for run in (*first, *second):
        if run.images != first[0].images:
            raise CheckpointError(
                f"{run.folder} and {first[0].folder} were measured on different images; "
                "evaluate them on the same data"
            )
    one, other = (np.mean([run.correct for run in group], axis=0) for group in (first, second))
    return normal_interval(other - one)


def _predictions(path: Path) -> tuple[list[tuple[str, str]], np.ndarray]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: int(row["image"]))
        correct = np.array([row["true_class"] == row["predicted_class"] for row in rows])
        return [(row["image"], row["true_class"]) for row in rows], correct
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read; evaluate the run again") from error
