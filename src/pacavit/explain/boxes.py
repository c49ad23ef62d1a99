"""Why is there a car? Scores of the classes of a box."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

from pacavit.detectors import Detector
from pacavit.explain.core.map_scores import MapScores, copies_of

__all__ = ["BoxScores"]


class BoxScores(MapScores):
    """(B, 3, height, width) -> the logits of the classes for a box in each image: (B, K).

    Boxes and classes are independent of each other: the score of a class for a box in which nothing
    was found asks why not.

    Args:
        detector: shared with the caller.
        boxes: (B, 4), x1 y1 x2 y2 in pixels of the network's input. Images may come in several
            copies of the whole batch, as methods that alter images send them.
    """

    boxes: Tensor

    def __init__(self, detector: Detector, boxes: Tensor) -> None:
        super().__init__(detector.backbone)
        self.detector = detector
        self.register_buffer("boxes", boxes, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The logits, see ``Detector.class_logits``."""
        size = (images.shape[2], images.shape[3])
        boxes = self.boxes.repeat(copies_of(images, len(self.boxes)), 1)
        return self.detector.class_logits(self.maps_of(images), size, boxes)

    @torch.no_grad()
    def similarities(self, images: Tensor) -> Tensor:
        """How well the detector still finds each box: (B, K) in 0..1.

        Of each class, the largest product of score and intersection over union with the box, among
        the objects that are found. Petsiuk et al., "Black-box explanation of object detectors via
        saliency maps", CVPR 2021, with the score of the class for the similarity of all classes.
        """
        boxes = self.boxes.repeat(copies_of(images, len(self.boxes)), 1)
        rows = []
        for found, box in zip(self.detector(images), boxes, strict=True):
            values = box_iou(box[None], found.boxes.to(box))[0] * found.scores.to(box)
            best = values.new_zeros(self.detector.num_classes)
            rows.append(best.scatter_reduce(0, found.labels, values, "amax"))
        return torch.stack(rows)
