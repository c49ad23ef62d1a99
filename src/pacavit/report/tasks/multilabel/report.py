"""The report of classification with any number of classes per image."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from torch import Tensor

from pacavit.data import Batch
from pacavit.engine.evaluate import Evaluation
from pacavit.engine.scoring import SplitScore
from pacavit.report import html
from pacavit.report.curves import svg_picture
from pacavit.report.explanation.heatmaps import Heatmaps
from pacavit.report.explanation.mistakes import ImageLinks
from pacavit.report.tasks.base import (
    REPORTS,
    PairedScores,
    StoredEvaluation,
    TaskReport,
)
from pacavit.tasks.classification import Predictions
from pacavit.tasks.multilabel.thresholds import THRESHOLDS, f1_by_threshold
from pacavit.utils.tables import csv_bytes
from pacavit.utils.text import escape_formulas

__all__ = ["MultilabelReport"]

PREDICTIONS, THRESHOLDS_FILE = "predictions.csv", "thresholds.csv"
_FEW = 6  # images with heatmaps
_LINES = 10  # classes whose curves can be distinguished


class _Probabilities:
    """Keeps the probabilities and the targets of all images, on the CPU."""

    def __init__(self) -> None:
        self._chunks: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, predictions: Predictions, batch: Batch) -> None:
        chunk = (batch.indices, predictions.probabilities, batch.targets)
        self._chunks.append(tuple(each.cpu() for each in chunk))  # type: ignore[arg-type]

    def gather(self) -> tuple[Tensor, Tensor, Tensor]:
        """Positions (N,), probabilities (N, classes), targets (N, classes) of 0 and 1."""
        indices, probabilities, targets = zip(*self._chunks, strict=True)
        return torch.cat(indices), torch.cat(probabilities), torch.cat(targets)


@REPORTS.register("multilabel")
class MultilabelReport(TaskReport):
    """Average precision and F1 of each class, and its best threshold."""

    files = ("per_class.csv", THRESHOLDS_FILE, PREDICTIONS)
    headline: ClassVar[Mapping[str, str]] = {"mAP": "mAP", "f1_macro": "F1 (macro)"}
    compared: ClassVar[Mapping[str, str]] = {
        "mAP": "mAP",
        "F1 (macro)": "f1_macro",
        "exact match": "exact_match",
    }
    proportions = ("exact_match",)
    paired = "exact match"
    labels: ClassVar[Mapping[str, str]] = {
        "f1": "F1",
        "f1_macro": "F1, macro",
        "f1_micro": "F1, micro",
    }

    def observer(self) -> _Probabilities:
        """Keeps all probabilities."""
        return _Probabilities()

    def choose_few(self, observed: _Probabilities) -> list[int]:
        """Images spread evenly over the split."""
        indices = observed.gather()[0]
        spread = torch.linspace(0, len(indices) - 1, min(_FEW, len(indices))).round().long()
        positions: list[int] = indices[spread].tolist()
        return positions

    def contents(
        self,
        score: SplitScore,
        observed: _Probabilities,
        *,
        title: str,
        heatmaps: Heatmaps | None,
        links: Mapping[int, ImageLinks] | None = None,
    ) -> dict[str, bytes]:
        """Tables of classes, thresholds, and probabilities of every image."""
        evaluation = score.evaluation
        names = [row.name for row in evaluation.per_class]
        indices, probabilities, targets = observed.gather()
        places, f1 = _best_places(evaluation)
        predicted = probabilities >= evaluation.arrays["threshold"]
        header = ("image", "true_classes", "predicted_classes", *names)
        lines = (
            (
                score.image_name(index),
                _joined(names, target),
                _joined(names, called),
                *_rounded(row),
            )
            for index, target, called, row in zip(
                indices.tolist(), targets, predicted, probabilities, strict=True
            )
        )
        return {
            **super().contents(score, observed, title=title, heatmaps=heatmaps),
            THRESHOLDS_FILE: csv_bytes(
                ("class", "threshold", "f1"),
                zip(names, _rounded(THRESHOLDS[places]), f1.tolist(), strict=True),
            ),
            PREDICTIONS: csv_bytes(header, lines),
        }

    def paired_scores(self, folder: Path) -> PairedScores:
        """Which images have exactly their true classes predicted at the task's threshold."""
        text = (folder / PREDICTIONS).read_text(encoding="utf-8")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        correct = [row["true_classes"] == row["predicted_classes"] for row in rows]
        images = tuple((row["image"], row["true_classes"]) for row in rows)
        return PairedScores(images, np.array(correct, dtype=bool))

    def sections(self, stored: Mapping[str, StoredEvaluation]) -> list[html.Section]:
        """Scores, and the thresholds."""
        return [self.results_section(stored), _thresholds_section(stored)]

    def scores_caption(self) -> str:
        """The caption of the table of scores."""
        return "mAP is the mean over classes of average precision; F1 at the task's threshold"


def _joined(names: Sequence[str], chosen: Tensor) -> str:
    """The names of the classes that are 1 in a row (classes,), joined."""
    return ";".join(names[label] for label in chosen.nonzero()[:, 0].tolist())


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 6) for value in values.tolist()]


def _best_places(evaluation: Evaluation) -> tuple[Tensor, Tensor]:
    """For each class the index of the threshold with the highest F1, and that F1: (classes,)."""
    f1, places = f1_by_threshold(evaluation.arrays["threshold_counts"]).max(1)
    return places, f1


def _thresholds_section(stored: Mapping[str, StoredEvaluation]) -> html.Section:
    """The best threshold of each class, chosen on validation images if evaluated, and its F1."""
    split, first = next(iter(stored.items()))
    chosen_on = "validation" if "validation" in stored else split
    places, _ = _best_places(stored[chosen_on].evaluation)
    curves = f1_by_threshold(first.evaluation.arrays["threshold_counts"])
    rows: list[list[str | html.Cell]] = []
    for row, place, values in zip(first.evaluation.per_class, places.tolist(), curves, strict=True):
        there = float(values[place])
        rows.append(
            [
                row.name,
                f"{float(THRESHOLDS[place]):.2f}",
                html.number(row.scores["f1"]),
                html.Cell(html.number(there), bar=there),
            ]
        )
    caption = f"Thresholds with the highest F1 on {chosen_on} images, and F1 on {split} images"
    header = ["class", "threshold", "F1 at the task's threshold", "F1 at this threshold"]
    names = [row.name for row in first.evaluation.per_class]
    light, dark = (_f1_svg(curves, names, dark=dark) for dark in (False, True))
    picture = html.picture(
        html.data_uri(light, "image/svg+xml"),
        "F1 of each class by threshold",
        f"F1 by threshold, {split} images"
        + (f"; the mean of {len(names)} classes" if len(names) > _LINES else ""),
        dark=html.data_uri(dark, "image/svg+xml"),
    )
    parts = [html.table(caption, header, rows), picture]
    if chosen_on == split:
        note = (
            "The thresholds were chosen on the same images, so their F1 is too high; evaluate on "
            "the validation images to choose thresholds there."
        )
        parts.append(html.paragraph(note))
    return html.Section("Thresholds", parts)


def _f1_svg(curves: Tensor, names: Sequence[str], *, dark: bool) -> bytes:
    """F1 by threshold: one line per class, or the mean of many classes."""
    if len(names) > _LINES:
        curves, names = curves.mean(0, keepdim=True), ["mean"]

    def draw(axes: Axes) -> None:
        for number, (name, values) in enumerate(zip(names, curves.tolist(), strict=True)):
            label = escape_formulas(name)
            axes.plot(THRESHOLDS, values, label=label, color=colormaps["tab10"](number))
        axes.set(xlabel="threshold", ylabel="F1", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(fontsize=8, frameon=False)

    return svg_picture(draw, (5, 3.5), dark=dark)
