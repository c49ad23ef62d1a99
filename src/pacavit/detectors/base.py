"""The interface of detectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from pacavit.models import Pyramid
from pacavit.utils.registry import Registry

__all__ = ["DETECTORS", "Detected", "Detector", "Target"]


class Target(NamedTuple):
    """The objects to learn in an image of a batch.

    Attributes:
        boxes: (num, 4) float32, x1 y1 x2 y2 in pixels of the input, each with an area above 0.
        labels: (num,) int64, classes from 0.
        masks: (num, height, width) bool, like the input; None for detectors of boxes.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None


class Detected(NamedTuple):
    """The objects found in an image, in falling order of their scores.

    Attributes:
        boxes: (num, 4) fp32, x1 y1 x2 y2 in pixels of the input.
        labels: (num,) int64, classes from 0.
        scores: (num,) fp32 in 0..1.
        box_masks: (num, side, side) fp32 in 0..1, the mask of each object over its own box; None
            for detectors of boxes, and for those that fill ``instances``.
        instances: (height, width) int64 like the input, the pixels of each object: k + 1 for object
            k, 0 for none; None for other detectors.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    box_masks: Tensor | None = None
    instances: Tensor | None = None


class Detector(nn.Module, ABC):
    """A backbone with what finds objects in its maps. One decorated class in its own file.

    Constructors take the backbone and the number of classes, then options of their own.

    Args:
        backbone: maps of several resolutions.
        num_classes: K, without a background.

    Attributes:
        has_masks: it finds the masks of objects, and learns from them.
        loss_names: of the losses, in their order.
    """

    has_masks: ClassVar[bool]
    loss_names: ClassVar[tuple[str, ...]]

    def __init__(self, backbone: Pyramid, num_classes: int) -> None:
        super().__init__()
        self.backbone, self.num_classes = backbone, num_classes

    @abstractmethod
    def losses(
        self, images: Tensor, targets: Sequence[Target], sizes: Sequence[tuple[int, int]]
    ) -> dict[str, Tensor]:
        """Named scalar losses, means over the images, in training mode; their sum is minimized.

        Args:
            images: (B, 3, height, width), normalized.
            targets: of each image; images without objects are allowed.
            sizes: (height, width) of each image in the batch without its padding, which is right
                and below.
        """

    @abstractmethod
    def forward(self, images: Tensor) -> list[Detected]:
        """(B, 3, height, width) images of one size, without padding -> the objects in each.

        In evaluation mode. An image's result does not depend on the others in the batch.
        """

    @abstractmethod
    def class_logits(self, maps: Sequence[Tensor], size: tuple[int, int], boxes: Tensor) -> Tensor:
        """The logits of all classes for given boxes, differentiable, for explanations.

        Args:
            maps: of the backbone for B images of one size.
            size: (height, width) of the images.
            boxes: (B, 4), one per image, x1 y1 x2 y2 in pixels of the images.

        Returns:
            (B, K) fp32: before the last nonlinearity, in the box itself or at the place that is
            responsible for it.
        """

    @abstractmethod
    def classifiers(self) -> Sequence[nn.Module]:
        """The layers whose outputs are classes; they are left out where classes differ."""


DETECTORS: Registry[Detector] = Registry("detector")
