"""The objects in an image, as the tasks predict them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pacavit.data import Rle

__all__ = ["Detections"]


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in an image, in falling order of their scores.

    Attributes:
        boxes: (num, 4) fp32 on the CPU, x1 y1 x2 y2 in pixels of the original, inside it.
        labels: (num,) int64, classes.
        scores: (num,) fp32 in 0..1.
        size: (height, width) of the original.
        masks: one per object, of the original's size; None for detectors of boxes.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    size: tuple[int, int]
    masks: tuple[Rle, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def above(self, score: float) -> Detections:
        """Those with at least a score."""
        number = int(torch.count_nonzero(self.scores >= score))
        return replace(
            self,
            boxes=self.boxes[:number],
            labels=self.labels[:number],
            scores=self.scores[:number],
            masks=None if self.masks is None else self.masks[:number],
        )
