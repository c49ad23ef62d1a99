"""The results of the runs of a comparison, and the significance of their differences."""

from __future__ import annotations

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
from pacavit.engine.weights.load import weights_digest
from pacavit.errors import CheckpointError
from pacavit.models import count_macs
from pacavit.report.evaluation import read_evaluation
from pacavit.report.publishing.card import input_size
from pacavit.report.stored import evaluation_folder
from pacavit.report.tasks import TaskReport, report_of
from pacavit.report.tasks.base import PairedScores
from pacavit.utils.command import Command
from pacavit.utils.statistics import Interval, Spread, normal_interval, spread

__all__ = ["Comparison", "Row", "RunResult", "compare_runs", "leading_rows", "read_run"]


@dataclass(frozen=True, eq=False)
class RunResult:
    """A run that is trained and evaluated on the test images.

    Attributes:
        value: label of its row, the value of the compared field.
        seed: of the training.
        folder: run folder.
        evaluation: on the test images.
        paired: a score of each test image, for paired tests; None for tasks without that.
        epochs: rows of ``metrics.jsonl``.
        parameters: number of parameters of the network.
        macs: multiply-accumulates per image, without the iterations of classic clusterings.
    """

    value: str
    seed: int
    folder: Path
    evaluation: Evaluation
    paired: PairedScores | None
    epochs: Sequence[Mapping[str, Any]]
    parameters: int
    macs: int

    @property
    def training_speed(self) -> float:
        """Training images per second, the median over epochs."""
        return median(row["images_per_second"] for row in self.epochs)

    @property
    def minutes(self) -> float:
        """Duration of the training."""
        return self.epochs[-1]["elapsed"] / 60

    def clusters(self, name: str) -> float | None:
        """A statistic of the clusters after the last epoch; None for networks without clusters."""
        return self.epochs[-1].get(f"{PREFIX}{name}")


@dataclass(frozen=True, eq=False)
class Row:
    """All runs of one value.

    Attributes:
        value: label of the row: the value of the first compared field, FIELD=VALUE for others.
        runs: one per seed.
        difference: of the mean score of the images to the first row, paired by image; None in the
            first row, and for tasks without a score per image. Its interval (McNemar's test, where
            images are correct or not) does not cover other seeds.
    """

    value: str
    runs: Sequence[RunResult]
    difference: Interval | None

    def score(self, name: str) -> Spread:
        """A score over the seeds."""
        return spread([run.evaluation.scores[name] for run in self.runs])

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

    @property
    def report(self) -> TaskReport:
        """The report of the task of all runs."""
        return report_of(self.rows[0].runs[0].evaluation.task)

    @property
    def columns(self) -> Mapping[str, str]:
        """Headings of the table of scores, with the names of the scores; the first is drawn."""
        return self.report.comparison_columns(self.rows[0].runs[0].evaluation)

    @property
    def is_tested(self) -> bool:
        """Whether differences to the first row were tested over images."""
        return any(row.difference is not None for row in self.rows)

    @property
    def main(self) -> tuple[str, str]:
        """Heading and name of the score that is drawn."""
        return next(iter(self.columns.items()))


def leading_rows(comparison: Comparison) -> list[Row]:
    """The row with the highest main score, and all rows that do not differ from it significantly.

    The test is that of ``difference``, over other images. For tasks without it, only rows with the
    same score count as equal.

    Raises:
        CheckpointError: the runs were not measured on the same images.
    """
    _, main = comparison.main
    best = max(comparison.rows, key=lambda row: row.score(main).mean)
    leading = [best]
    for row in comparison.rows:
        change = difference(best.runs, row.runs)
        same = row.score(main).mean == best.score(main).mean
        if row is not best and (same if change is None else not change.significant):
            leading.append(row)
    return leading


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
    paired = _paired_scores(stored.evaluation.task, measured)
    if paired is not None and len(paired.values) != stored.evaluation.num_images:
        raise CheckpointError(f"{measured} is not complete; remove it, and evaluate {folder} again")
    return RunResult(
        value,
        seed,
        folder,
        stored.evaluation,
        paired,
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


def difference(first: Sequence[RunResult], second: Sequence[RunResult]) -> Interval | None:
    """Mean score of the images in the second group minus that in the first, paired by image.

    Where an image is correct or not, and with one run each, the interval is that of McNemar's test:
    images on which both are correct, or both incorrect, add no variance. With several runs, each
    image counts with its mean over seeds. None for tasks without a score per image.

    Raises:
        CheckpointError: the runs were not measured on the same images.
    """
    groups: list[list[PairedScores]] = []
    for runs in (first, second):
        group = [run.paired for run in runs if run.paired is not None]
        if len(group) < len(runs):
            return None
        groups.append(group)
    for run, paired in zip((*first, *second), (*groups[0], *groups[1]), strict=True):
        if paired.images != groups[0][0].images:
            raise CheckpointError(
                f"{run.folder} and {first[0].folder} were measured on different images; "
                "evaluate them on the same data"
            )
    one, other = (
        np.mean([each.values.astype(float) for each in group], axis=0) for group in groups
    )
    return normal_interval(other - one)


def _paired_scores(task: str, folder: Path) -> PairedScores | None:
    try:
        return report_of(task).paired_scores(folder)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"the predictions in {folder} cannot be read; evaluate the run again"
        ) from error
