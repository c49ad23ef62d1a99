"""The report of classification with one class per image."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pydantic
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pacavit.data import DataInfo
from pacavit.engine.evaluate import Evaluation
from pacavit.engine.scoring import SplitScore
from pacavit.report import html
from pacavit.report.explanation.heatmaps import Heatmaps
from pacavit.report.explanation.mistakes import ImageLinks
from pacavit.report.tasks.base import (
    INTERVAL,
    REPORTS,
    PairedScores,
    StoredEvaluation,
    TaskReport,
)
from pacavit.report.tasks.classification import sections
from pacavit.report.tasks.classification.examples import (
    Examples,
    choose_few,
    choose_mistakes,
    pick_examples,
)
from pacavit.report.tasks.classification.observe import TopClasses, TopClassesObserver
from pacavit.report.tasks.confusion import confusion_csv, confusion_png
from pacavit.utils.tables import csv_bytes

__all__ = ["ClassificationReport"]

EXAMPLES, PREDICTIONS = "examples.json", "predictions.csv"
_EXAMPLES = pydantic.TypeAdapter(Examples)
_KINDS = {"precision": "precision", "recall": "recall", "f1": "F1"}


@REPORTS.register("classification")
class ClassificationReport(TaskReport):
    """Confusion matrix, examples with probabilities, and precision, recall and F1 of all kinds."""

    files = ("per_class.csv", "confusion.csv", "confusion.png", PREDICTIONS, EXAMPLES)
    headline: ClassVar[Mapping[str, str]] = {"accuracy": "accuracy", "f1_macro": "F1 (macro)"}
    compared: ClassVar[Mapping[str, str]] = {
        "accuracy": "accuracy",
        "precision": "precision_macro",
        "recall": "recall_macro",
        "F1": "f1_macro",
    }
    proportions = ("accuracy",)
    paired = "accuracy"
    labels: ClassVar[Mapping[str, str]] = {
        "loss": "log loss",
        "f1": "F1",
        **{
            f"{kind}_{average}": f"{label}, {average}"
            for average in ("macro", "weighted")
            for kind, label in _KINDS.items()
        },
        "calibration_error": "calibration error",
        "calibration_error_uncalibrated": "calibration error at temperature 1",
    }

    def observer(self) -> TopClassesObserver:
        """Keeps the most probable classes of every image."""
        return TopClassesObserver()

    def choose_few(self, observed: TopClassesObserver) -> list[int]:
        """Some correct images, then some incorrect ones."""
        return choose_few(observed.top())

    def choose_mistakes(self, observed: TopClassesObserver) -> list[int]:
        """The most probable mistakes, and those of the most frequent confusions."""
        return choose_mistakes(observed.top())

    def contents(
        self,
        score: SplitScore,
        observed: TopClassesObserver,
        *,
        title: str,
        heatmaps: Heatmaps | None,
        links: Mapping[int, ImageLinks] | None = None,
    ) -> dict[str, bytes]:
        """Tables of classes, confusions and predictions, a picture, and example images."""
        evaluation, top = score.evaluation, observed.top()
        names = [row.name for row in evaluation.per_class]
        confusion = evaluation.arrays["confusion"].cpu().numpy()
        accuracy = evaluation.scores["accuracy"]
        title = f"{title}: accuracy {accuracy:.4f} of {evaluation.num_images:,} images"
        examples = pick_examples(score, top, heatmaps, links)
        return {
            EXAMPLES: _EXAMPLES.dump_json(examples, indent=2) + b"\n",
            **super().contents(score, observed, title=title, heatmaps=heatmaps),
            "confusion.csv": confusion_csv(confusion, names),
            PREDICTIONS: csv_bytes(
                (
                    "image",
                    "true_class",
                    "true_class_probability",
                    "predicted_class",
                    "predicted_class_probability",
                ),
                _predictions(score, top, names),
            ),
            "confusion.png": confusion_png(confusion, names, title=title),
        }

    def read_details(self, folder: Path) -> Examples:
        """The examples of a stored evaluation."""
        return _EXAMPLES.validate_json((folder / EXAMPLES).read_bytes())

    def paired_scores(self, folder: Path) -> PairedScores:
        """Which images have the true class as their top-1 class, from ``predictions.csv``."""
        text = (folder / PREDICTIONS).read_text(encoding="utf-8")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        correct = [row["true_class"] == row["predicted_class"] for row in rows]
        images = tuple((row["image"], row["true_class"]) for row in rows)
        return PairedScores(images, np.array(correct, dtype=bool))

    def sections(self, stored: Mapping[str, StoredEvaluation]) -> list[html.Section]:
        """Scores, confusion matrix, examples, and heatmaps where there are some."""
        split, first = next(iter(stored.items()))
        examples: Examples = first.details
        found = [
            self.results_section(stored),
            sections.confusion_section(first.evaluation, split, examples, first.base),
            sections.examples_section(examples, split, first.base),
        ]
        if examples.heatmaps is not None:
            found.append(sections.heatmaps_section(examples.heatmaps, split))
        return found

    def card_tables(self, evaluation: Evaluation) -> list[tuple[list[str], list[list[str]]]]:
        """Averages over classes, and the table of classes."""
        scores = evaluation.scores
        averages = [
            [
                average,
                *(f"{scores[name]:.4f}" for name in ("accuracy", *_averaged(average))),
            ]
            for average in ("macro", "weighted")
        ]
        _, classes = super().card_tables(evaluation)
        return [(["average", "accuracy", *_KINDS.values()], averages), classes]

    def card_limits(self, info: DataInfo, evaluation: Evaluation) -> str:
        """States that a class is always assigned, and the calibration error."""
        calibrated = "calibration_error_uncalibrated" in evaluation.scores
        how = "calibrated on validation images" if calibrated else "not calibrated"
        return (
            f"The network has {len(info.class_names)} classes and assigns one of them to any "
            f"image, whatever it shows. Probabilities are {how}; the expected calibration "
            f"error is {evaluation.scores['calibration_error']:.3f} (15 bins)."
        )

    def hub_scores(self, evaluation: Evaluation) -> dict[str, float]:
        """Accuracy, and macro F1."""
        scores = evaluation.scores
        return {"accuracy": scores["accuracy"], "f1": scores["f1_macro"]}

    def scores_caption(self) -> str:
        """The caption of the table of scores."""
        return "Precision, recall and F1 are means over classes"

    def scores_as_text(self, evaluation: Evaluation) -> dict[str, str]:
        """Accuracy and loss, means over classes, everything else, and counts."""
        texts = super().scores_as_text(evaluation)
        main = ["accuracy", "loss", *(name for name in self.labels if name in evaluation.scores)]
        named = [self.label(name) for name in main]
        order = dict.fromkeys([named[0], f"{named[0]}, {INTERVAL}", *named, *texts])
        return {name: texts[name] for name in order if name in texts}

    def print(self, evaluation: Evaluation, console: Console, *, title: str) -> None:
        """Print averages over classes, further scores, and the table of classes."""
        scores = dict(evaluation.scores)
        accuracy = scores.pop("accuracy")
        summary = Table(title=escape(title), title_justify="left")
        summary.add_column("average")
        for name in ("accuracy", *_KINDS.values()):
            summary.add_column(name, justify="right")
        for average in ("macro", "weighted"):
            values = [scores.pop(name) for name in _averaged(average)]
            summary.add_row(average, *(f"{value:.4f}" for value in (accuracy, *values)))
        console.print(summary)
        further = Table()
        for name in scores:
            further.add_column(escape(self.label(name)), justify="right")
        further.add_row(*(f"{value:.4f}" for value in scores.values()))
        console.print(further)
        self.print_classes(evaluation, console)


def _averaged(average: str) -> list[str]:
    """Names of the scores that are means over classes, "macro" or "weighted"."""
    return [f"{kind}_{average}" for kind in _KINDS]


def _predictions(
    score: SplitScore, top: TopClasses, names: Sequence[str]
) -> Iterable[tuple[Any, ...]]:
    """One row per image, in stored order."""
    rows = zip(
        top.indices.tolist(),
        top.labels.tolist(),
        top.true_probabilities.tolist(),
        top.classes[:, 0].tolist(),
        top.probabilities[:, 0].tolist(),
        strict=True,
    )
    for index, label, true, predicted, probability in rows:
        image = score.image_name(index)
        yield image, names[label], round(true, 6), names[predicted], round(probability, 6)
