"""Scores of a classifier with one class per image."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from pacavit.tasks.classification.classifier import Predictions

__all__ = ["CalibrationError", "ClassificationMetrics", "LogLoss"]


class LogLoss(Metric):
    """Mean negative log-probability of the true class, without label smoothing."""

    full_state_update = False
    higher_is_better = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add (B, classes) probabilities and (B,) labels."""
        chosen = probabilities.gather(1, labels[:, None]).clamp_min(1e-12)
        # float64, unless the device has none.
        self.total -= chosen.to(self.total.dtype).log().sum()
        self.count += len(labels)

    def compute(self) -> Tensor:
        """The mean so far."""
        return self.total / self.count


class CalibrationError(MulticlassCalibrationError):
    """torchmetrics' score, except that a confidence of exactly 1 belongs to the last bin."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add (B, classes) probabilities and (B,) labels."""
        super().update(preds.clamp_max(1 - torch.finfo(preds.dtype).eps), target)


class UncalibratedError(CalibrationError):
    """The calibration error of softmax(logits), without a temperature."""

    num_images: Tensor

    def __init__(self, num_classes: int, n_bins: int) -> None:
        super().__init__(num_classes, n_bins=n_bins)
        # Collections merge metrics whose states are close after the first batch, unless their names
        # differ.
        self.add_state("num_images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(  # type: ignore[override]
        self, preds: Tensor, target: Tensor, logits: Tensor
    ) -> None:
        """Add (B, classes) logits and (B,) labels; the probabilities ``preds`` are ignored."""
        super().update(logits.softmax(1), target)
        self.num_images += len(target)


class ClassificationMetrics(MetricCollection):
    """Accuracy, loss, calibration, confusion, and precision, recall and F1 of all kinds.

    ``calibration_error`` is the expected calibration error of the top-1 class, in 15 bins of
    equal width (Guo et al., "On calibration of modern neural networks", ICML 2017).
    ``calibration_error_uncalibrated`` is the same without a temperature.

    Args:
        num_classes: K; ``confusion`` is (K, K) with true classes as rows, the ``_per_class``
            scores are (K,), all others scalars. With five classes or fewer ``top5_accuracy``
            would always be 1 and is left out.
        calibrated: whether the probabilities were calibrated; ``calibration_error_uncalibrated``
            is left out if not.
    """

    def __init__(self, num_classes: int, *, calibrated: bool = False) -> None:
        metrics: dict[str, Metric] = {
            "accuracy": MulticlassAccuracy(num_classes, average="micro"),
            "loss": LogLoss(),
            "calibration_error": CalibrationError(num_classes, n_bins=15),
            "confusion": MulticlassConfusionMatrix(num_classes),
        }
        if num_classes > 5:
            metrics["top5_accuracy"] = MulticlassAccuracy(num_classes, average="micro", top_k=5)
        if calibrated:
            metrics["calibration_error_uncalibrated"] = UncalibratedError(num_classes, n_bins=15)
        kinds = {
            "precision": MulticlassPrecision,
            "recall": MulticlassRecall,
            "f1": MulticlassF1Score,
        }
        for average, suffix in (("macro", "macro"), ("weighted", "weighted"), (None, "per_class")):
            for name, kind in kinds.items():
                metrics[f"{name}_{suffix}"] = kind(num_classes, average=cast(Any, average))
        # torchmetrics takes a dict of metrics or of collections and declares only the union.
        super().__init__(cast(Any, metrics))

    def update(self, predictions: Predictions, labels: Tensor) -> None:  # type: ignore[override]
        """Add the predictions for B images, and their (B,) labels."""
        super().update(predictions.probabilities, labels, logits=predictions.logits)
