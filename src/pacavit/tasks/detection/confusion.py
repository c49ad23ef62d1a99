"""Hits, misses and false alarms at one score threshold, by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray
from torch import Tensor

from pacavit.data import Objects
from pacavit.tasks.detection.predictions import Detections, coco_boxes

__all__ = ["IN_CROWD", "NO_OBJECT", "WorkingPoint", "hit_objects", "match_objects", "working_point"]

_IOU = 0.5
NO_OBJECT, IN_CROWD = -1, -2
"""Instead of the position of an object: a detection hits none, or lies in a crowd region."""


class WorkingPoint(NamedTuple):
    """The score threshold with the best F1 over all objects, at an IoU of .5.

    Attributes:
        f1: its F1; 0 if nothing was found.
        score: the threshold; 1 if no detection is right.
        confusion: (K + 1, K + 1) int64 objects at that threshold, true classes as rows and found
            ones as columns; the last column holds missed objects, the last row false alarms.
    """

    f1: float
    score: float
    confusion: Tensor


class _Image(NamedTuple):
    """An image with its IoUs.

    Attributes:
        found: in falling order of their scores.
        truth: objects, with crowd regions.
        ious: (found, objects); of a crowd region it is the part of the detection inside it.
        hits: (found,) int64, the object of its own class that each detection hits; -1 for none, -2
            for those in a crowd region, which do not count.
    """

    found: Detections
    truth: Objects
    ious: NDArray[np.float64]
    hits: NDArray[np.int64]


def working_point(
    found: Sequence[Detections], truth: Sequence[Objects], num_classes: int, *, masks: bool
) -> WorkingPoint:
    """Choose the score threshold with the best F1, and count at it.

    Detections hit objects of their own class in falling order of their scores, as COCO matches
    them. Those that hit none are then compared with objects of other classes that are left.

    Args:
        found: in each image.
        truth: likewise.
        num_classes: K.
        masks: compare masks instead of boxes.
    """
    images = []
    for detections, objects in zip(found, truth, strict=True):
        ious = _ious(detections, objects, masks=masks)
        hits = _own_hits(detections, objects, ious)
        images.append(_Image(detections, objects, ious, hits))
    f1, score = _best_threshold(images)
    confusion = torch.zeros(num_classes + 1, num_classes + 1, dtype=torch.int64)
    for image in images:
        _count(image, score, confusion)
    return WorkingPoint(f1, score, confusion)


def hit_objects(found: Detections, truth: Objects, *, masks: bool) -> NDArray[np.int64]:
    """(found,): the object of its own class that each detection hits, as ``match_objects``.

    Args:
        found: in an image.
        truth: the objects in it.
        masks: compare masks instead of boxes.
    """
    return _own_hits(found, truth, _ious(found, truth, masks=masks))


def _own_hits(found: Detections, truth: Objects, ious: NDArray[np.float64]) -> NDArray[np.int64]:
    same = found.labels[:, None] == truth.labels
    return match_objects(np.where(same, ious, 0), truth.crowd.numpy())


def match_objects(ious: NDArray[np.float64], crowd: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(found, objects) IoUs -> (found,) the object that each detection hits, -1 or -2.

    In order, each detection takes the object with the highest IoU of at least .5 that is not taken
    yet; in a crowd region (-2) any number may lie.
    """
    hits = np.full(len(ious), NO_OBJECT, dtype=np.int64)
    free = ~crowd
    for row in np.flatnonzero((ious >= _IOU).any(1)):
        own = np.where(free, ious[row], 0)
        best = int(own.argmax())
        if own[best] >= _IOU:
            hits[row], free[best] = best, False
        elif (ious[row][crowd] >= _IOU).any():
            hits[row] = IN_CROWD
    return hits


def _ious(found: Detections, truth: Objects, *, masks: bool) -> NDArray[np.float64]:
    if not len(found) or not len(truth):
        return np.zeros((len(found), len(truth)))
    own: Sequence[Any] = coco_boxes(found.boxes)
    others: Sequence[Any] = coco_boxes(truth.boxes)
    if masks:
        assert found.masks is not None
        assert truth.masks is not None
        own = [mask.as_coco() for mask in found.masks]
        others = [mask.as_coco() for mask in truth.masks]
    return np.asarray(coco_mask.iou(own, others, truth.crowd.int().tolist()))


def _best_threshold(images: Sequence[_Image]) -> tuple[float, float]:
    """The best F1 over all classes, and the lowest score that counts for it."""
    counted = [torch.from_numpy(image.hits != IN_CROWD) for image in images]
    scores = torch.cat(
        [image.found.scores[rows] for image, rows in zip(images, counted, strict=True)]
    )
    right = torch.cat(
        [
            torch.from_numpy(image.hits)[rows] >= 0
            for image, rows in zip(images, counted, strict=True)
        ]
    )
    objects = sum(int((~image.truth.crowd).sum()) for image in images)
    if not bool(right.any()):
        return 0.0, 1.0
    scores, order = scores.sort(descending=True)
    hits = right[order].cumsum(0)
    f1 = 2 * hits.double() / (torch.arange(1, len(hits) + 1) + objects)
    # Detections of equal scores pass a threshold together.
    f1[:-1][scores[:-1] == scores[1:]] = 0
    best = int(f1.argmax())
    return float(f1[best]), float(scores[best])


def _count(image: _Image, score: float, confusion: Tensor) -> None:
    """Add the objects and detections of an image to a confusion matrix."""
    none = len(confusion) - 1
    number = len(image.found.above(score))
    hits, ious = image.hits[:number].copy(), image.ious[:number]
    missed = ~image.truth.crowd.numpy()
    missed[hits[hits >= 0]] = False
    rest = np.flatnonzero(hits == NO_OBJECT)
    # What is left of all classes; crowd regions hide false alarms of their own class only.
    others = match_objects(ious[rest] * missed, np.zeros(len(missed), dtype=bool))
    hits[rest] = others
    missed[others[others >= 0]] = False
    true, predicted = image.truth.labels, image.found.labels
    for row, hit in enumerate(hits.tolist()):
        if hit != IN_CROWD:
            confusion[int(true[hit]) if hit >= 0 else none, int(predicted[row])] += 1
    for column in np.flatnonzero(missed).tolist():
        confusion[int(true[column]), none] += 1
