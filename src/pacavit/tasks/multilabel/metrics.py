"""Scores of a classifier with any number of classes per image."""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MultilabelAveragePrecision,
    MultilabelExactMatch,
    MultilabelF1Score,
    MultilabelPrecision,
    MultilabelRecall,
)

from pacavit.tasks.classification import Predictions
from pacavit.tasks.multilabel.thresholds import THRESHOLDS

__all__ = ["MultilabelMetrics", "ThresholdCounts"]


class Support(Metric):
    """Number of images of each class."""

    full_state_update = False
    count: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        zeros = torch.zeros(num_classes, dtype=torch.int64)
        self.add_state("count", zeros, dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Add (B, classes) probabilities, which are ignored, and targets of 0 and 1."""
        self.count += targets.sum(0)

    def compute(self) -> Tensor:
        """(classes,) int64."""
        return self.count


class ThresholdCounts(Metric):
    """True positives, false positives and false negatives of each class at all ``THRESHOLDS``."""

    full_state_update = False
    thresholds: Tensor
    counts: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("thresholds", THRESHOLDS, persistent=False)
        zeros = torch.zeros(3, num_classes, len(THRESHOLDS), dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Add (B, classes) probabilities and targets of 0 and 1."""
        called = probabilities[..., None] >= self.thresholds
        shown = targets.bool()[..., None]
        self.counts += torch.stack([(called & shown), (called & ~shown), (~called & shown)]).sum(1)

    def compute(self) -> Tensor:
        """(3, classes, thresholds) int64: true positives, false positives, false negatives."""
        return self.counts


class MultilabelMetrics(MetricCollection):
    """Average precision, and precision, recall and F1 at a threshold, averaged and per class.

    Args:
        num_classes: K; the ``_per_class`` scores are (K,), ``threshold_counts`` is (3, K, 99), all
            others are scalars.
        threshold: least probability of a predicted class.
    """

    def __init__(self, num_classes: int, threshold: float) -> None:
        per_class = cast(Any, None)  # torchmetrics' own name for it is the string "none"
        metrics: dict[str, Metric] = {
            "average_precision_per_class": MultilabelAveragePrecision(
                num_classes, average=per_class
            ),
            "exact_match": MultilabelExactMatch(num_classes, threshold=threshold),
            "f1_macro": MultilabelF1Score(num_classes, threshold=threshold, average="macro"),
            "f1_micro": MultilabelF1Score(num_classes, threshold=threshold, average="micro"),
            "support_per_class": Support(num_classes),
            "threshold_counts": ThresholdCounts(num_classes),
        }
        kinds = {
            "precision": MultilabelPrecision,
            "recall": MultilabelRecall,
            "f1": MultilabelF1Score,
        }
        for name, kind in kinds.items():
            metrics[f"{name}_per_class"] = kind(num_classes, threshold=threshold, average=per_class)
        # torchmetrics takes a dict of metrics or of collections and declares only the union.
        super().__init__(cast(Any, metrics))

    def update(self, predictions: Predictions, targets: Tensor) -> None:  # type: ignore[override]
        """Add the predictions for B images, and their (B, classes) targets of 0 and 1."""
        super().update(predictions.probabilities, targets.long())

    def compute(self) -> dict[str, Any]:
        """All scores; average precision is NaN for classes without images, which mAP leaves out."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No positive samples found in target")
            found: dict[str, Any] = super().compute()
        absent = found["support_per_class"] == 0
        precision = found["average_precision_per_class"].masked_fill(absent, torch.nan)
        mean = precision[~absent].mean() if not absent.all() else precision.new_zeros(())
        return {**found, "average_precision_per_class": precision, "mAP": mean}
