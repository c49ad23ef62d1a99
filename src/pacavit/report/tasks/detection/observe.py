"""What an evaluation keeps of each image: its detections, and which of them are right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pacavit.data import Batch, Objects
from pacavit.report.tasks.sampling import NUM_EXAMPLES, spread
from pacavit.tasks.detection import Detections
from pacavit.tasks.detection.confusion import NO_OBJECT, hit_objects

__all__ = ["DetectionObserver", "ImageCounts", "ImageResult", "Level"]


class ImageCounts(NamedTuple):
    """How many objects of an image are found, by detections of at least some score.

    Attributes:
        hits: objects that a detection of their class finds.
        misses: objects that none finds.
        false_alarms: detections that find nothing.
    """

    hits: int
    misses: int
    false_alarms: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 if there is no object and no detection."""
        total = 2 * self.hits + self.misses + self.false_alarms
        return 2 * self.hits / total if total else 1.0


class ImageResult(NamedTuple):
    """The detections in one image.

    Attributes:
        position: in the split.
        found: all detections.
        hits: (detections,) int64, position of the object that each has found, as ``match_objects``
            returns it.
        num_objects: number of objects; crowd regions do not count.
        image_id: the data set's own number of the image.
    """

    position: int
    found: Detections
    hits: NDArray[np.int64]
    num_objects: int
    image_id: int

    def counts(self, score: float) -> ImageCounts:
        """Hits, misses and false alarms of the detections with at least a score."""
        hits = self.hits[: len(self.found.above(score))]
        number = int((hits >= 0).sum())
        return ImageCounts(number, self.num_objects - number, int((hits == NO_OBJECT).sum()))


class Level(NamedTuple):
    """Precision and recall over all objects of a split, with the detections of at least a score.

    Attributes:
        score: the least score.
        precision: fraction of the detections that find an object; 0 without detections.
        recall: fraction of the objects that are found.
        f1: their harmonic mean.
    """

    score: float
    precision: float
    recall: float
    f1: float


class DetectionObserver:
    """The detections in all images, with the objects that they have found.

    Args:
        masks: compare masks instead of boxes.

    Attributes:
        results: of every image, in the order of the batches.
    """

    def __init__(self, *, masks: bool) -> None:
        self.masks = masks
        self.results: list[ImageResult] = []

    def __call__(self, records: Sequence[Detections], batch: Batch) -> None:
        """Add the predictions for a batch."""
        positions = batch.indices.tolist()
        for position, found, truth in zip(positions, records, batch.targets, strict=True):
            self.add(position, found, truth)

    def add(self, position: int, found: Detections, truth: Objects) -> None:
        """Add the detections in the image at a position."""
        hits = hit_objects(found, truth, masks=self.masks)
        number = int((~truth.crowd).sum())
        self.results.append(ImageResult(position, found, hits, number, truth.image_id))

    def level(self, score: float) -> Level:
        """Precision and recall with the detections of at least a score."""
        own = [result.counts(score) for result in self.results]
        total = ImageCounts(*(sum(column) for column in zip(*own, strict=True)))
        found, objects = total.hits + total.false_alarms, total.hits + total.misses
        return Level(score, total.hits / max(1, found), total.hits / max(1, objects), total.f1)

    def chosen(self, score: float) -> tuple[list[ImageResult], ...]:
        """The images with the lowest F1, with the highest, and others.

        Each group is in its order: the lowest first, the highest first (of equal ones that with
        most objects), then by position. An image is in one group only.

        Args:
            score: detections with at least this score count.
        """
        shown = [each for each in self.results if each.num_objects or len(each.found)]
        rated = [(each.counts(score).f1, each) for each in shown]
        rated.sort(key=lambda each: (each[0], -each[1].num_objects, each[1].position))
        worst, left = rated[:NUM_EXAMPLES], rated[NUM_EXAMPLES:]
        left.sort(key=lambda each: (-each[0], -each[1].num_objects, each[1].position))
        best, left = left[:NUM_EXAMPLES], left[NUM_EXAMPLES:]
        left.sort(key=lambda each: spread(each[1].position))
        others = sorted(left[:NUM_EXAMPLES], key=lambda each: each[1].position)
        worst_results, best_results, other_results = (
            [result for _, result in group] for group in (worst, best, others)
        )
        return worst_results, best_results, other_results
