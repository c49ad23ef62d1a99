"""The reports of detection and instance segmentation."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from math import isnan, nan
from pathlib import Path
from typing import ClassVar

import numpy as np
import pydantic
from markupsafe import Markup
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pacavit.data import DataInfo
from pacavit.engine.evaluate import Evaluation
from pacavit.engine.scoring import SplitScore
from pacavit.report import html
from pacavit.report.explanation.heatmaps import Heatmaps
from pacavit.report.explanation.mistakes import ImageLinks
from pacavit.report.prediction import PredictionWriter
from pacavit.report.tasks.base import REPORTS, PairedScores, StoredEvaluation, TaskReport
from pacavit.report.tasks.confusion import confusion_csv, confusion_png, confusion_section
from pacavit.report.tasks.detection.examples import (
    KINDS,
    THRESHOLD,
    ObjectExamples,
    pick_examples,
)
from pacavit.report.tasks.detection.files import PREDICTIONS, DetectionWriter, predictions_bytes
from pacavit.report.tasks.detection.observe import DetectionObserver
from pacavit.report.tasks.detection.precision_recall import (
    precision_recall_png,
    precision_recall_section,
)
from pacavit.utils.tables import csv_bytes

__all__ = ["DetectionReport", "InstanceSegmentationReport"]

EXAMPLES, IMAGES, CURVES = "examples.json", "images.csv", "precision_recall.png"
_EXAMPLES = pydantic.TypeAdapter(ObjectExamples)
_NO_OBJECT = "no object"
_BEST_F1 = "best_F1"

_ROWS = {
    "AP": "AP",
    "AP50": "AP50",
    "AP75": "AP75",
    "AP_small": "AP small",
    "AP_medium": "AP medium",
    "AP_large": "AP large",
    "AP_300": "AP at 300",
    "AP50_300": "AP50 at 300",
    "AR_1": "AR at 1",
    "AR_10": "AR at 10",
    "AR_100": "AR at 100",
    "AR_300": "AR at 300",
}
"""Display names of the scores of boxes and masks, without the kind, in the order of tables."""

_SAME = {"AP_300": "AP", "AP50_300": "AP50", "AR_300": "AR_100"}
"""Scores at 300 detections, and those at 100."""


_CAPTION = (
    "Average precision (AP) and recall (AR) as COCO defines them: means over classes and IoU .5 to "
    ".95 (AP50: .5, AP75: .75), at 100 detections per image unless stated; small: below 32 x 32 "
    "pixels, medium: below 96 x 96"
)


@REPORTS.register("detection")
class DetectionReport(TaskReport):
    """Average precision and recall, precision-recall curves, confusions, hits and mistakes.

    Attributes:
        kinds: what is compared, the main one first: the first part of the names of scores.
    """

    kinds: ClassVar[tuple[str, ...]] = ("box",)
    files = (
        "per_class.csv",
        "confusion.csv",
        "confusion.png",
        CURVES,
        IMAGES,
        PREDICTIONS,
        EXAMPLES,
    )
    headline: ClassVar[Mapping[str, str]] = {"box_AP": "box AP", "box_AP50": "box AP50"}
    compared: ClassVar[Mapping[str, str]] = {
        "box AP": "box_AP",
        "box AP50": "box_AP50",
        "box AP75": "box_AP75",
        "box AR": "box_AR_100",
        "best F1": _BEST_F1,
    }
    paired = "the F1 of each image, at IoU .5 and the score with the best F1 over all images,"
    counted = "objects"
    labels: ClassVar[Mapping[str, str]] = {THRESHOLD: "score with the best F1"}
    hub_task = "object-detection"
    hub_names: ClassVar[Mapping[str, str]] = {"map": "box_AP", "map_50": "box_AP50"}

    def observer(self) -> DetectionObserver:
        """Keeps the detections in every image, and which objects they find."""
        return DetectionObserver(masks=self.kinds[0] == "mask")

    def prediction_writer(self, out: Path, info: DataInfo, *, overwrite: bool) -> PredictionWriter:
        """Writes overlays and COCO's result format into a folder."""
        return DetectionWriter(out, info, overwrite=overwrite)

    def contents(
        self,
        score: SplitScore,
        observed: DetectionObserver,
        *,
        title: str,
        heatmaps: Heatmaps | None,
        links: Mapping[int, ImageLinks] | None = None,
    ) -> dict[str, bytes]:
        """Tables of classes, confusions and images, pictures, predictions, and example images."""
        evaluation = score.evaluation
        names = [row.name for row in evaluation.per_class]
        confusion = evaluation.arrays["confusion"].cpu().numpy()
        limit = evaluation.scores[THRESHOLD]
        results = sorted(observed.results, key=lambda each: each.position)
        counts = [(each, each.counts(limit)) for each in results]
        lines = (
            (score.image_name(each.position), each.num_objects, *own, round(own.f1, 6))
            for each, own in counts
        )
        return {
            EXAMPLES: _EXAMPLES.dump_json(pick_examples(score, observed), indent=2) + b"\n",
            **super().contents(score, observed, title=title, heatmaps=heatmaps),
            "confusion.csv": confusion_csv(confusion, [*names, _NO_OBJECT]),
            "confusion.png": confusion_png(
                confusion,
                [*names, _NO_OBJECT],
                title=f"{title}: objects at IoU .5, scores of at least {limit:.2f}",
            ),
            CURVES: precision_recall_png(evaluation, names, title=title),
            IMAGES: csv_bytes(("image", "objects", "hits", "misses", "false_alarms", "f1"), lines),
            PREDICTIONS: predictions_bytes(score, results),
        }

    def read_details(self, folder: Path) -> ObjectExamples:
        """The examples of a stored evaluation."""
        return _EXAMPLES.validate_json((folder / EXAMPLES).read_bytes())

    def paired_scores(self, folder: Path) -> PairedScores:
        """The F1 of each image; 1 for images without objects and detections."""
        text = (folder / IMAGES).read_text(encoding="utf-8")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        images = tuple((row["image"], row["objects"]) for row in rows)
        return PairedScores(images, np.array([float(row["f1"]) for row in rows]))

    def sections(self, stored: Mapping[str, StoredEvaluation]) -> list[html.Section]:
        """Scores, precision and recall, confusions, and examples."""
        split, first = next(iter(stored.items()))
        evaluation = first.evaluation
        names = [row.name for row in evaluation.per_class]
        confusion, limit = evaluation.arrays["confusion"], evaluation.scores[THRESHOLD]
        return [
            self.results_section(stored),
            precision_recall_section(evaluation, names, first.details.levels, split),
            confusion_section(
                confusion,
                confusion.cpu().numpy(),
                [*names, _NO_OBJECT],
                f"{split.capitalize()} images: true objects of each class (rows) by the class of "
                f"the detection with an IoU of at least .5 and a score of at least {limit:.2f}. "
                "The last column counts missed objects, the last row false alarms.",
                split=split,
                counted=self.counted,
            ),
            _examples_section(first.details, names, split),
        ]

    def results_section(self, stored: Mapping[str, StoredEvaluation]) -> html.Section:
        """Scores on one or more splits; for the first also per class, and the best F1."""
        section = super().results_section(stored)
        split, first = next(iter(stored.items()))
        scores = first.evaluation.scores
        if not scores[_BEST_F1]:
            note = f"No object of the {split} images is found at an IoU of .5."
        else:
            note = (
                f"The best F1 over all objects of the {split} images at an IoU of .5 is "
                f"{scores[_BEST_F1]:.3f}, with the detections that have a score of at least "
                f"{scores[THRESHOLD]:.2f}. The confusion matrix and the pictures show these."
            )
        return html.Section(section.title, [*section.parts, html.paragraph(note)])

    def scores_table(self, stored: Mapping[str, StoredEvaluation]) -> Markup:
        """Scores of boxes and masks side by side, on one or more splits."""
        evaluations = [each.evaluation for each in stored.values()]
        rows = self._rows(evaluations)
        blank = [""] * (len(self.kinds) - 1)
        for title, texts in (
            ("best F1", [html.number(each.scores[_BEST_F1]) for each in evaluations]),
            ("images", [f"{each.num_images:,}" for each in evaluations]),
        ):
            rows.append([title, *(cell for text in texts for cell in (text, *blank))])
        header = ["score", *(f"{split}, {kind}" for split in stored for kind in self.kinds)]
        return html.table(_CAPTION, header, rows)

    def print(self, evaluation: Evaluation, console: Console, *, title: str) -> None:
        """Print the scores of boxes and masks side by side, and the table of classes."""
        summary = Table("score", title=escape(title), title_justify="left")
        for kind in self.kinds:
            summary.add_column(kind, justify="right")
        for row in self._rows([evaluation]):
            summary.add_row(*row)
        console.print(summary)
        console.print(
            f"best F1 {evaluation.scores[_BEST_F1]:.4f} at IoU .5, with scores of at least "
            f"{evaluation.scores[THRESHOLD]:.2f}",
            highlight=False,
        )
        self.print_classes(evaluation, console)

    def card_tables(self, evaluation: Evaluation) -> list[tuple[list[str], list[list[str]]]]:
        """Scores of boxes and masks side by side, and those of the classes."""
        _, *others = super().card_tables(evaluation)
        return [(["score", *self.kinds], self._rows([evaluation])), *others]

    def _rows(self, evaluations: Sequence[Evaluation]) -> list[list[str]]:
        """Rows of scores as text, with a column for each evaluation and kind.

        Scores that no evaluation has are left out, and so are those at 300 detections where these
        are the ones at 100.
        """
        columns = [(each.scores, kind) for each in evaluations for kind in self.kinds]
        values = {
            name: [scores.get(f"{kind}_{name}", nan) for scores, kind in columns] for name in _ROWS
        }
        return [
            [title, *map(_text, values[name])]
            for name, title in _ROWS.items()
            if not all(map(isnan, values[name])) and values[name] != values.get(_SAME.get(name, ""))
        ]

    def card_limits(self, info: DataInfo, evaluation: Evaluation) -> str:
        """States what is found, and at which score."""
        number = len(info.class_names)
        limit = evaluation.scores[THRESHOLD]
        return (
            f"The network finds objects of {number} {'class' if number == 1 else 'classes'}, and "
            "other things may be taken for them. Scores order the objects and are not "
            f"probabilities; a least score of {limit:.2f} gave the best F1 on the test images. "
            "AP is COCO's, at 100 detections per image."
        )

    def card_input(self, size: tuple[int, int]) -> str:
        """States the size in training; images of any size are predicted."""
        return (
            f"Images of any size are predicted, resized as in training to about {size[1]} x "
            f"{size[0]} pixels; objects that are much smaller or larger than those of the training "
            "images are found less well."
        )

    def hub_scores(self, evaluation: Evaluation) -> dict[str, float]:
        """The main scores, named as torchmetrics and transformers do."""
        return {hub: evaluation.scores[name] for hub, name in self.hub_names.items()}


@REPORTS.register("instance_segmentation")
class InstanceSegmentationReport(DetectionReport):
    """The report of detection for masks, with the scores of the boxes beside them."""

    kinds = ("mask", "box")
    headline: ClassVar[Mapping[str, str]] = {
        "mask_AP": "mask AP",
        "mask_AP50": "mask AP50",
        "box_AP": "box AP",
    }
    compared: ClassVar[Mapping[str, str]] = {
        "mask AP": "mask_AP",
        "mask AP50": "mask_AP50",
        "mask AP75": "mask_AP75",
        "box AP": "box_AP",
        "best F1": _BEST_F1,
    }
    hub_task = "image-segmentation"
    hub_names: ClassVar[Mapping[str, str]] = {
        "segm_map": "mask_AP",
        "segm_map_50": "mask_AP50",
        "bbox_map": "box_AP",
    }


def _text(value: float) -> str:
    return "n/a" if isnan(value) else html.number(value)


def _examples_section(examples: ObjectExamples, names: list[str], split: str) -> html.Section:
    """Images with their objects, their detections, and which of these are right."""
    kinds = (
        ("Lowest F1", examples.worst),
        ("Highest F1", examples.best),
        ("Other images", examples.others),
    )
    values = {
        "explanation": f"{split.capitalize()} images. Of each: its objects; the detections with "
        f"scores of at least {examples.score:.2f}; and the same as",
        "marks": [(kind, *look) for kind, look in KINDS.items()],
        "legend": list(zip(names, examples.colors, strict=True)),
        "kinds": [(title, found) for title, found in kinds if found],
    }
    return html.Section("Images", [html.render("detections.html", values)])
