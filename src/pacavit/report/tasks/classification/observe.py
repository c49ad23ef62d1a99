"""Observer of a classifier's predictions: keeps the most probable classes of all images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pacavit.data import Batch
from pacavit.tasks.classification import Predictions

__all__ = ["TopClasses", "TopClassesObserver"]

_TOP = 3  # classes kept per image


class TopClasses(NamedTuple):
    """The most probable classes of each of N images, in stored order; on the CPU.

    Attributes:
        indices: (N,) int64, their positions in the split.
        labels: (N,) int64, the true classes.
        true_probabilities: (N,) of the true classes.
        classes: (N, k) int64, the most probable classes, most probable first.
        probabilities: (N, k) of these.
    """

    indices: Tensor
    labels: Tensor
    true_probabilities: Tensor
    classes: Tensor
    probabilities: Tensor


class TopClassesObserver:
    """Collects ``TopClasses``, batch by batch."""

    def __init__(self) -> None:
        self._chunks: list[TopClasses] = []

    def __call__(self, predictions: Predictions, batch: Batch) -> None:
        """Add the predictions for a batch with int64 labels."""
        probabilities, labels = predictions.probabilities, batch.targets
        values, classes = probabilities.topk(min(_TOP, probabilities.shape[1]))
        true_probabilities = probabilities.gather(1, labels[:, None])[:, 0]
        self._chunks.append(TopClasses(batch.indices, labels, true_probabilities, classes, values))

    def top(self) -> TopClasses:
        """The top classes of all images so far."""
        return TopClasses(*(torch.cat(each).cpu() for each in zip(*self._chunks, strict=True)))
