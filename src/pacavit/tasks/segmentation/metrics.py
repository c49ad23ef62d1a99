"""Scores of a segmentation: from one confusion matrix over all pixels, and at boundaries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection

from pacavit.data import IGNORE_INDEX
from pacavit.tasks.segmentation.predictions import Segmentation

__all__ = [
    "BoundaryCounts",
    "PixelConfusion",
    "SegmentationMetrics",
    "boundary_region",
    "image_confusion",
    "ious",
]

_BOUNDARY = 0.02  # width of the boundary over the diagonal of the image, as published


class PixelConfusion(Metric):
    """(classes, classes) int64 pixels, true classes as rows; pixels without a class do not count.

    Args:
        num_classes: K.
        clusters: count ``cluster_labels`` instead of ``labels``.
    """

    full_state_update = False
    matrix: Tensor

    def __init__(self, num_classes: int, *, clusters: bool = False) -> None:
        super().__init__()
        self.num_classes, self.clusters = num_classes, clusters
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("matrix", zeros, dist_reduce_fx="sum")

    def update(self, records: Sequence[Segmentation], targets: Sequence[Tensor]) -> None:
        """Add the predictions for B images, and their masks (H, W)."""
        for record, target in zip(records, targets, strict=True):
            labels = record.cluster_labels if self.clusters else record.labels
            if labels is None:
                continue
            self.matrix += image_confusion(labels, target, self.num_classes).to(self.matrix.device)

    def compute(self) -> Tensor:
        """The matrix so far."""
        return self.matrix


def image_confusion(labels: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Pixels of an image by true and predicted class.

    Args:
        labels: (H, W) uint8, predicted classes.
        target: (H, W) uint8, true classes, or ``IGNORE_INDEX`` for pixels that do not count.
        num_classes: K.

    Returns:
        (K, K) int64, true classes as rows.
    """
    known = target != IGNORE_INDEX
    pairs = target[known].long() * num_classes + labels[known]
    return pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def boundary_region(labels: Tensor, known: Tensor) -> Tensor:
    """(H, W) classes -> (H, W) bool, the known pixels near another class or the edge of the image.

    Near is at most 2 % of the diagonal, in rows and in columns. Cheng et al., "Boundary IoU:
    improving object-centric image segmentation evaluation", CVPR 2021. Unknown pixels are near to
    any class: their outlines would be boundaries of the truth that predictions cannot have.

    Args:
        labels: (H, W) uint8, classes of the pixels.
        known: (H, W) bool, False at pixels without a true class.
    """
    height, width = labels.shape
    reach = max(1, round(_BOUNDARY * math.hypot(height, width)))
    side = 2 * reach + 1
    # Beyond the edge is a class of its own.
    values = F.pad(labels.float(), (1, 1, 1, 1), value=-1.0)
    unknown = F.pad(~known, (1, 1, 1, 1), value=False)

    def largest(x: Tensor) -> Tensor:
        x = x.masked_fill(unknown, -math.inf)[None, None]
        rows = F.max_pool2d(x, (side, 1), stride=1, padding=(reach, 0))
        return F.max_pool2d(rows, (1, side), stride=1, padding=(0, reach))[0, 0]

    near = largest(values) != -largest(-values)
    return near[1:-1, 1:-1] & known


class BoundaryCounts(Metric):
    """(3, classes) int64 pixels near boundaries: in both, in the truth, in the prediction."""

    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        zeros = torch.zeros(3, num_classes, dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, records: Sequence[Segmentation], targets: Sequence[Tensor]) -> None:
        """Add the predictions for B images, and their masks (H, W)."""
        for record, target in zip(records, targets, strict=True):
            known = target != IGNORE_INDEX
            truth = boundary_region(target, known)
            found = boundary_region(record.labels, known)
            both = truth & found & (target == record.labels)
            for row, labels, chosen in (
                (0, target, both),
                (1, target, truth),
                (2, record.labels, found),
            ):
                counts = labels[chosen].long().bincount(minlength=self.num_classes)
                self.counts[row] += counts.to(self.counts.device)

    def compute(self) -> Tensor:
        """The counts so far."""
        return self.counts


class SegmentationMetrics(MetricCollection):
    """IoU, accuracy and boundary IoU per class and as means, from counts over all pixels.

    Means are over the classes that occur in the truth or in the predictions; per-class scores of
    the others are NaN. ``confusion`` is (K, K) with true classes as rows.

    Args:
        num_classes: K.
        clusters: also score the classes whose clusters are highest, as ``clusters_mIoU``.
    """

    def __init__(self, num_classes: int, *, clusters: bool = False) -> None:
        metrics: dict[str, Metric] = {
            "confusion": PixelConfusion(num_classes),
            "boundary": BoundaryCounts(num_classes),
        }
        if clusters:
            metrics["clusters"] = PixelConfusion(num_classes, clusters=True)
        # torchmetrics takes a dict of metrics or of collections and declares only the union.
        super().__init__(cast(Any, metrics), compute_groups=False)

    def update(  # type: ignore[override]
        self, records: Sequence[Segmentation], targets: Sequence[Tensor]
    ) -> None:
        """Add the predictions for B images, and their masks (H, W)."""
        super().update(records, targets)

    def compute(self) -> dict[str, Tensor]:
        """All scores by name."""
        counts = super().compute()
        confusion = counts["confusion"]
        iou, support, correct = ious(confusion), confusion.sum(1), confusion.diagonal()
        total = support.sum().clamp_min(1)
        accuracy = torch.where(support > 0, correct / support.clamp_min(1), torch.nan)
        both, truth, found = counts["boundary"]
        union = truth + found - both
        boundary = torch.where(union > 0, both / union.clamp_min(1), torch.nan)
        scores = {
            "mIoU": iou.nanmean(),
            "pixel_accuracy": correct.sum() / total,
            "mean_accuracy": accuracy.nanmean(),
            "frequency_weighted_IoU": (iou.nan_to_num(0) * support).sum() / total,
            "boundary_IoU": boundary.nanmean(),
        }
        if "clusters" in counts:
            scores["clusters_mIoU"] = ious(counts["clusters"]).nanmean()
        return {
            **scores,
            "accuracy_per_class": accuracy,
            "boundary_iou_per_class": boundary,
            "iou_per_class": iou,
            "support_per_class": support,
            "confusion": confusion,
        }


def ious(confusion: Tensor) -> Tensor:
    """(K, K) pixels -> (K,) intersection over union; NaN for classes that do not occur."""
    correct = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - correct
    return torch.where(union > 0, correct / union.clamp_min(1), torch.nan)
