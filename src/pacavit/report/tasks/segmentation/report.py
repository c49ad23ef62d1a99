"""The report of segmentation: IoU of each class, confusions, and images with their classes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import ClassVar

import numpy as np
import pydantic
from numpy.typing import NDArray
from torch import Tensor

from pacavit.data import DataInfo
from pacavit.engine.evaluate import Evaluation
from pacavit.engine.scoring import SplitScore
from pacavit.report import html
from pacavit.report.explanation.heatmaps import Heatmaps
from pacavit.report.explanation.mistakes import ImageLinks
from pacavit.report.prediction import PredictionWriter
from pacavit.report.tasks.base import REPORTS, PairedScores, StoredEvaluation, TaskReport
from pacavit.report.tasks.confusion import confusion_csv, confusion_png, confusion_section
from pacavit.report.tasks.segmentation.examples import MaskExamples, pick_examples
from pacavit.report.tasks.segmentation.files import SegmentationWriter
from pacavit.report.tasks.segmentation.observe import SegmentationObserver
from pacavit.utils.tables import csv_bytes

__all__ = ["SegmentationReport"]

EXAMPLES, IMAGES = "examples.json", "images.csv"
_EXAMPLES = pydantic.TypeAdapter(MaskExamples)


@REPORTS.register("segmentation")
class SegmentationReport(TaskReport):
    """IoU, accuracy and boundary IoU of each class, and images with true and predicted classes."""

    files = ("per_class.csv", "confusion.csv", "confusion.png", IMAGES, EXAMPLES)
    headline: ClassVar[Mapping[str, str]] = {
        "mIoU": "mIoU",
        "pixel_accuracy": "pixel accuracy",
    }
    compared: ClassVar[Mapping[str, str]] = {
        "mIoU": "mIoU",
        "pixel accuracy": "pixel_accuracy",
        "mean accuracy": "mean_accuracy",
        "boundary IoU": "boundary_IoU",
    }
    paired = "the mean IoU per image"
    counted = "pixels"
    hub_task = "image-segmentation"
    labels: ClassVar[Mapping[str, str]] = {
        "iou": "IoU",
        "boundary_iou": "boundary IoU",
        "frequency_weighted_IoU": "frequency-weighted IoU",
        "clusters_mIoU": "mIoU of the clusters alone",
    }

    def observer(self) -> SegmentationObserver:
        """Keeps the scores of every image, and the classes of a few."""
        return SegmentationObserver()

    def prediction_writer(self, out: Path, info: DataInfo, *, overwrite: bool) -> PredictionWriter:
        """Writes label images, overlays and areas into a folder."""
        return SegmentationWriter(out, info, overwrite=overwrite)

    def contents(
        self,
        score: SplitScore,
        observed: SegmentationObserver,
        *,
        title: str,
        heatmaps: Heatmaps | None,
        links: Mapping[int, ImageLinks] | None = None,
    ) -> dict[str, bytes]:
        """Tables of classes, confusions and images, a picture, and example images."""
        evaluation = score.evaluation
        names = [row.name for row in evaluation.per_class]
        confusion = evaluation.arrays["confusion"].cpu().numpy()
        lines = (
            (
                score.image_name(each.position),
                *("" if isnan(value) else round(value, 6) for value in (each.iou, each.accuracy)),
                each.labeled,
            )
            for each in sorted(observed.scores)
        )
        assert score.info.masks is not None
        examples = pick_examples(score, observed, score.info.masks)
        return {
            EXAMPLES: _EXAMPLES.dump_json(examples, indent=2) + b"\n",
            **super().contents(score, observed, title=title, heatmaps=heatmaps),
            "confusion.csv": confusion_csv(confusion, names),
            "confusion.png": confusion_png(
                _percent(evaluation.arrays["confusion"]),
                names,
                title=f"{title}: mIoU {evaluation.scores['mIoU']:.4f}, percent of pixels",
            ),
            IMAGES: csv_bytes(("image", "mIoU", "pixel_accuracy", "labeled_pixels"), lines),
        }

    def read_details(self, folder: Path) -> MaskExamples:
        """The examples of a stored evaluation."""
        return _EXAMPLES.validate_json((folder / EXAMPLES).read_bytes())

    def paired_scores(self, folder: Path) -> PairedScores:
        """The IoU of each image, the mean over its classes; 0 for images without a label."""
        text = (folder / IMAGES).read_text(encoding="utf-8")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        values = [float(row["mIoU"] or 0) for row in rows]
        images = tuple((row["image"], row["labeled_pixels"]) for row in rows)
        return PairedScores(images, np.array(values))

    def sections(self, stored: Mapping[str, StoredEvaluation]) -> list[html.Section]:
        """Scores, confusions, and examples."""
        split, first = next(iter(stored.items()))
        names = [row.name for row in first.evaluation.per_class]
        counts = first.evaluation.arrays["confusion"]
        return [
            self.results_section(stored),
            confusion_section(
                counts,
                _percent(counts),
                names,
                f"{split.capitalize()} images: percent of the pixels of each true class (rows) "
                "that are predicted as each class (columns).",
                split=split,
                counted=self.counted,
            ),
            _examples_section(first.details, names, split),
        ]

    def results_section(self, stored: Mapping[str, StoredEvaluation]) -> html.Section:
        """Scores on one or more splits; for the first also per class, and the absent classes."""
        section = super().results_section(stored)
        split, first = next(iter(stored.items()))
        absent = [row.name for row in first.evaluation.per_class if isnan(row.scores["iou"])]
        if not absent:
            return section
        note = (
            f"No pixel of the {split} images has, or is predicted as, {', '.join(absent)}; these "
            "classes are left out of the means."
        )
        return html.Section(section.title, [*section.parts, html.paragraph(note)])

    def scores_caption(self) -> str:
        """The caption of the table of scores."""
        return "Scores over all pixels; means are over classes"

    def card_limits(self, info: DataInfo, evaluation: Evaluation) -> str:
        """States that every pixel gets one of the classes."""
        return (
            f"The network has {len(info.class_names)} classes and assigns one of them to every "
            "pixel, whatever it shows. Scores are from one confusion matrix over all pixels of the "
            "split; pixels without a label do not count."
        )

    def card_input(self, size: tuple[int, int]) -> str:
        """States the size of the crops in training; images of any size are predicted."""
        return (
            f"Images of any size are predicted as a whole; it was trained on {size[1]} x {size[0]} "
            "pixels at a time, and objects of other sizes than there are found less well."
        )

    def hub_scores(self, evaluation: Evaluation) -> dict[str, float]:
        """Mean IoU, and pixel accuracy."""
        scores = evaluation.scores
        return {"mean_iou": scores["mIoU"], "accuracy": scores["pixel_accuracy"]}


def _percent(counts: Tensor) -> NDArray[np.int64]:
    """(K, K) pixels -> (K, K) percent of each row, rounded."""
    percent = (100 * counts / counts.sum(1, keepdim=True).clamp_min(1)).round().long()
    return np.asarray(percent.cpu().numpy())


def _examples_section(examples: MaskExamples, names: list[str], split: str) -> html.Section:
    """Images with their true and predicted classes, and where these differ."""
    kinds = (
        ("Lowest scores", examples.worst),
        ("Highest scores", examples.best),
        ("Other images", examples.others),
    )
    values = {
        "explanation": f"{split.capitalize()} images. Of each: the image; its true classes; the "
        "predicted classes; wrong pixels in red, pixels without a label in black.",
        "legend": list(zip(names, examples.colors, strict=True)),
        "kinds": [(title, found) for title, found in kinds if found],
    }
    return html.Section("Images", [html.render("segmentations.html", values)])
