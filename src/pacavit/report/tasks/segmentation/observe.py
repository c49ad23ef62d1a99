"""What an evaluation keeps of each image: its scores, and the classes of a few of them."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from pacavit.data import Batch
from pacavit.report.tasks.sampling import NUM_EXAMPLES, spread
from pacavit.tasks.segmentation import Segmentation
from pacavit.tasks.segmentation.metrics import image_confusion, ious

__all__ = ["ImageScore", "SegmentationObserver"]


class ImageScore(NamedTuple):
    """The scores of one image.

    Attributes:
        position: in the split.
        iou: mean over the classes in its truth or its prediction; NaN without labeled pixels.
        accuracy: fraction of the labeled pixels that are right; NaN without any.
        labeled: number of pixels with a class.
    """

    position: int
    iou: float
    accuracy: float
    labeled: int


class SegmentationObserver:
    """Scores of all images, and the predicted classes of those that a report shows.

    Attributes:
        scores: of every image, in the order of the batches.
    """

    def __init__(self) -> None:
        self.scores: list[ImageScore] = []
        # Heaps of (rank, -index, labels) for the worst, the best and any images.
        self._kept: tuple[list[tuple[float, int, Tensor]], ...] = ([], [], [])

    def __call__(self, records: Sequence[Segmentation], batch: Batch) -> None:
        """Add the predictions for a batch."""
        indices = batch.indices.tolist()
        for index, record, target in zip(indices, records, batch.targets, strict=True):
            confusion = image_confusion(record.labels, target, len(record.logits))
            labeled = int(confusion.sum())
            accuracy = int(confusion.diagonal().sum()) / labeled if labeled else float("nan")
            iou = float(ious(confusion).nanmean())
            self.scores.append(ImageScore(index, iou, accuracy, labeled))
            if labeled:
                labels = record.labels.cpu()
                self._keep(0, -iou, index, labels)
                self._keep(1, iou, index, labels)
                self._keep(2, spread(index), index, labels)

    def chosen(self) -> tuple[dict[int, Tensor], ...]:
        """Predicted classes by position, of the images with the lowest and highest IoU, and others.

        Each group is in its order: the lowest first, the highest first, then by position. An image
        is in one group only.
        """
        taken: set[int] = set()
        groups = []
        for kept in self._kept:
            group = {}
            for _, negative, labels in sorted(kept, key=lambda entry: entry[:2], reverse=True):
                index = -negative
                if index not in taken:
                    taken.add(index)
                    group[index] = labels
            groups.append(group)
        worst, best, others = groups
        return worst, best, dict(sorted(others.items()))

    def _keep(self, group: int, rank: float, index: int, labels: Tensor) -> None:
        """Keep an image if it is among those of the highest rank."""
        heap = self._kept[group]
        if len(heap) < NUM_EXAMPLES:
            heapq.heappush(heap, (rank, -index, labels))
        elif (rank, -index) > heap[0][:2]:
            heapq.heapreplace(heap, (rank, -index, labels))
