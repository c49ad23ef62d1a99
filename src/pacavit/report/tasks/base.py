"""The results of a task in files, on pages and on the console.

``TaskReport`` itself shows the scores of any task; subclasses add tables and pictures of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isnan
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pacavit.data import DataInfo
from pacavit.engine.evaluate import ClassScores, Evaluation, Observer
from pacavit.engine.scoring import SplitScore
from pacavit.report import html
from pacavit.report.explanation.heatmaps import Heatmaps
from pacavit.report.explanation.mistakes import ImageLinks
from pacavit.report.prediction import PredictionWriter
from pacavit.report.prediction_table import TableWriter
from pacavit.utils.registry import Registry
from pacavit.utils.statistics import proportion_interval
from pacavit.utils.tables import csv_bytes

__all__ = [
    "REPORTS",
    "PairedScores",
    "StoredEvaluation",
    "TaskReport",
    "left_out",
    "report_of",
]

MANY_CLASSES = 30
"""With more classes than this, a page shows the lowest scores, and all others on request."""

INTERVAL = "95 % interval"
"""Follows the name of a score in tables: Wilson's interval, over other images."""

_FEW = 10  # rows of a table of the lowest scores


class PairedScores(NamedTuple):
    """A score of each image of a split, for tests of differences that are paired by image.

    Attributes:
        images: name or position and target of each image, as text.
        values: (images,): bool where an image is correct or not; else float, higher is better.
    """

    images: tuple[tuple[str, str], ...]
    values: NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class StoredEvaluation:
    """An evaluation that was read from a folder.

    Attributes:
        evaluation: the scores.
        details: further data that the task's report stored.
        data: version of the data.
        date: of the evaluation.
        broken: a line on each image that was left out because it could not be read.
        split: which images of the data.
        base: what relative links of a page to the files of the evaluation begin with.
    """

    evaluation: Evaluation
    details: Any
    data: str
    date: datetime
    broken: tuple[str, ...] = ()
    split: str = ""
    base: str = ""


class TaskReport:
    """Files, sections, tables and lines of a task's results.

    Attributes:
        files: names of the files that ``contents`` returns.
        labels: display names of scores, by name, where they differ from the names.
        headline: display names of the main scores by name, the most important one first.
        compared: names of the scores in a comparison by display name; the first is drawn. If empty,
            all scores are compared.
        proportions: names of the scores that are fractions of the images.
        paired: display name of the score per image whose differences a comparison tests.
        counted: what the scores of a class are measured on, in the plural.
        hub_task: name of the task on the Hugging Face hub.
    """

    files: ClassVar[tuple[str, ...]] = ("per_class.csv",)
    labels: ClassVar[Mapping[str, str]] = {}
    headline: ClassVar[Mapping[str, str]] = {}
    compared: ClassVar[Mapping[str, str]] = {}
    proportions: ClassVar[tuple[str, ...]] = ()
    paired: ClassVar[str] = "correctness"
    counted: ClassVar[str] = "images"
    hub_task: ClassVar[str] = "image-classification"

    def observer(self) -> Observer | None:
        """A new observer of predictions, which is passed to ``contents``; None for none."""
        return None

    def prediction_writer(self, out: Path, info: DataInfo, *, overwrite: bool) -> PredictionWriter:
        """What ``pacavit predict --out`` writes predictions with; by default a table.

        Args:
            out: file or folder to write.
            info: of the data that the model was trained on.
            overwrite: replace what is there.

        Raises:
            PacavitError: predictions cannot be written there.
        """
        return TableWriter(out, overwrite=overwrite)

    def choose_few(self, observed: Any) -> list[int]:
        """Positions of the few images for which heatmaps are made; none by default."""
        return []

    def choose_mistakes(self, observed: Any) -> list[int]:
        """Positions of the mistakes that get a page with explanations; none by default."""
        return []

    def contents(
        self,
        score: SplitScore,
        observed: Any,
        *,
        title: str,
        heatmaps: Heatmaps | None,
        links: Mapping[int, ImageLinks] | None = None,
    ) -> dict[str, bytes]:
        """The ``files`` of an evaluation in addition to its scores, as bytes by name.

        Args:
            score: the evaluation, with images and facts about the data.
            observed: the observer after all batches.
            title: data and split.
            heatmaps: of a few of the images; None leaves them out.
            links: files of images, by position.
        """
        rows = score.evaluation.per_class
        header = list(rows[0].scores) if rows else []
        lines = ((row.name, *row.scores.values(), row.support) for row in rows)
        return {"per_class.csv": csv_bytes(("class", *header, "support"), lines)}

    def read_details(self, folder: Path) -> Any:
        """Data for ``sections`` other than scores, from the files of an evaluation.

        Raises:
            OSError, ValueError, KeyError, TypeError: a file is missing or broken.
        """
        return None

    def paired_scores(self, folder: Path) -> PairedScores | None:
        """A score of each image, from the files of an evaluation; None for tasks without that.

        Raises:
            OSError, ValueError, KeyError: a file is missing or broken.
        """
        return None

    def highlights(self, evaluation: Evaluation) -> dict[str, str]:
        """The main scores as text by display name, the most important one first."""
        names = self.headline or {name: self.label(name) for name in list(evaluation.scores)[:2]}
        return {label: html.percent(evaluation.scores[name]) for name, label in names.items()}

    def comparison_columns(self, evaluation: Evaluation) -> Mapping[str, str]:
        """The columns of a comparison: headings, and names of scores."""
        return self.compared or {self.label(name): name for name in evaluation.scores}

    def card_summary(self, evaluation: Evaluation) -> str:
        """The headline of a model card, such as "test accuracy 0.8967"."""
        name = next(iter(self.headline or evaluation.scores))
        return f"test {self.headline.get(name, self.label(name))} {evaluation.scores[name]:.4f}"

    def card_tables(self, evaluation: Evaluation) -> list[tuple[list[str], list[list[str]]]]:
        """Headers and rows of a model card's tables of scores."""
        scores = [[self.label(name), f"{each:.4f}"] for name, each in evaluation.scores.items()]
        tables = [(["score", "value"], scores)]
        if evaluation.per_class:
            names = list(evaluation.per_class[0].scores)
            classes = [
                [row.name, *(f"{each:.4f}" for each in row.scores.values()), str(row.support)]
                for row in evaluation.per_class
            ]
            tables.append((["class", *map(self.label, names), self.counted], classes))
        return tables

    def card_limits(self, info: DataInfo, evaluation: Evaluation) -> str:
        """The limitations of the task for a model card, in one or two sentences."""
        return f"The network knows the {len(info.class_names)} classes it was trained on."

    def card_input(self, size: tuple[int, int]) -> str:
        """A sentence on what happens to images, for a model card.

        Args:
            size: (height, width) of the network's input in training.
        """
        return (
            f"Images are resized to {size[1]} x {size[0]} pixels, so small objects in larger "
            "images are lost."
        )

    def hub_scores(self, evaluation: Evaluation) -> dict[str, float]:
        """Scores by their names on the Hugging Face hub."""
        return {name: evaluation.scores[name] for name in self.headline or evaluation.scores}

    def label(self, name: str) -> str:
        """The display name of a score."""
        return self.labels.get(name, name.replace("_", " "))

    def sections(self, stored: Mapping[str, StoredEvaluation]) -> list[html.Section]:
        """The sections of a run's page with its results.

        Args:
            stored: evaluations by split, at least one; details are shown for the first.
        """
        return [self.results_section(stored)]

    def results_section(self, stored: Mapping[str, StoredEvaluation]) -> html.Section:
        """Scores of a model on one or more splits; for the first also per class."""
        summary = self.scores_table(stored)
        sources = [
            html.paragraph(
                f"{split.capitalize()} images: {each.data}, measured {each.date:%Y-%m-%d %H:%M %Z}."
            )
            for split, each in stored.items()
        ]
        sources += [
            html.paragraph(f"{left_out(split, len(each.broken))}, listed in its evaluation.json.")
            for split, each in stored.items()
            if each.broken
        ]
        split, first = next(iter(stored.items()))
        left = Markup("").join([summary, *sources])
        if not first.evaluation.per_class:
            return html.Section("Results", [left])
        right = Markup("").join(self._per_class(first.evaluation.per_class, split))
        return html.Section("Results", [html.side_by_side(left, right)])

    def scores_table(self, stored: Mapping[str, StoredEvaluation]) -> Markup:
        """All scores on one or more splits."""
        columns = [self.scores_as_text(each.evaluation) for each in stored.values()]
        names = dict.fromkeys(name for column in columns for name in column)
        rows = [[name, *(column.get(name, "") for column in columns)] for name in names]
        return html.table(self.scores_caption(), ["score", *stored], rows)

    def scores_caption(self) -> str:
        """The caption of the table of scores."""
        return "Scores"

    def scores_as_text(self, evaluation: Evaluation) -> dict[str, str]:
        """All scores of an evaluation as text, by display name."""
        texts = {}
        for name, value in evaluation.scores.items():
            texts[self.label(name)] = html.number(value)
            if name in self.proportions:
                _, low, high = proportion_interval(value, evaluation.num_images)
                texts[f"{self.label(name)}, {INTERVAL}"] = f"{low:.3f} to {high:.3f}"
        texts["images"] = f"{evaluation.num_images:,}"
        if not isnan(evaluation.images_per_second):
            texts["images/s"] = html.number(evaluation.images_per_second, digits=0)
        return texts

    def print(self, evaluation: Evaluation, console: Console, *, title: str) -> None:
        """Print the scores, and the table of classes."""
        summary = Table("score", title=escape(title), title_justify="left")
        summary.add_column("value", justify="right")
        for name, value in evaluation.scores.items():
            summary.add_row(escape(self.label(name)), f"{value:.4f}")
        console.print(summary)
        self.print_classes(evaluation, console)

    def print_classes(self, evaluation: Evaluation, console: Console) -> None:
        """Print the table of classes, if there is one."""
        if not evaluation.per_class:
            return
        classes = Table("class")
        for name in (*evaluation.per_class[0].scores, self.counted):
            classes.add_column(escape(self.label(name)), justify="right")
        for row in evaluation.per_class:
            scores = [f"{score:.4f}" for score in row.scores.values()]
            classes.add_row(escape(row.name), *scores, str(row.support))
        console.print(classes)

    def _per_class(self, classes: Sequence[ClassScores], split: str) -> list[Markup]:
        """A table of all classes; with many, one of the lowest scores, and all of them folded."""
        caption = f"Scores of each class, {split} images"
        if len(classes) <= MANY_CLASSES:
            return [self._class_table(caption, classes)]
        last = list(classes[0].scores)[-1]
        # Scores that are not defined come last.
        worst = sorted(classes, key=lambda row: (isnan(row.scores[last]), row.scores[last]))[:_FEW]
        title = f"The {_FEW} classes with the lowest {self.label(last)}, {split} images"
        return [
            self._class_table(title, worst),
            html.folded(f"All {len(classes):,} classes", self._class_table(caption, classes)),
        ]

    def _class_table(self, caption: str, classes: Sequence[ClassScores]) -> Markup:
        names = list(classes[0].scores)
        rows: list[list[str | html.Cell]] = []
        for row in classes:
            *others, last = row.scores.values()
            cells: list[str | html.Cell] = [row.name, *map(_number, others)]
            bar = html.Cell(_number(last), bar=None if isnan(last) else last)
            rows.append([*cells, bar, f"{row.support:,}"])
        return html.table(caption, ["class", *map(self.label, names), self.counted], rows)


REPORTS: Registry[TaskReport] = Registry("task report")


def report_of(task: str) -> TaskReport:
    """The report of a task; a plain ``TaskReport`` if the task has none of its own."""
    return REPORTS.get(task)() if task in REPORTS else TaskReport()


def _number(value: float) -> str:
    return "n/a" if isnan(value) else html.number(value)


def left_out(split: str, number: int) -> str:
    """How many images of a split could not be read, without paths, which may be private."""
    images = "image was" if number == 1 else "images were"
    return f"{number:,} {split} {images} left out because they could not be read"
