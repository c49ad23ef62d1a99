"""FCOS: boxes in one stage."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import generalized_box_iou

from pacavit.detectors.base import DETECTORS, Detected, Detector, Target
from pacavit.detectors.neck import FeaturePyramid
from pacavit.detectors.options import check_fractions, check_positive
from pacavit.detectors.published import ExactAnchors
from pacavit.errors import RecipeError
from pacavit.models import Pyramid

__all__ = ["Fcos"]

_GROUPS = 32  # of the norms in the heads of torchvision
_LOSS_NAMES = {
    "classes": "classification",
    "boxes": "bbox_regression",
    "centerness": "bbox_ctrness",
}


@DETECTORS.register("fcos")
class Fcos(Detector):
    """Boxes in one stage: a class and a box at each position, without anchors.

    Tian et al., "FCOS: A Simple and Strong Anchor-free Object Detector", TPAMI 2021: the parts of
    torchvision, with a backbone of any library. A position learns the smallest object that it is
    near the center of, and whose size suits its level. The levels are the maps and two coarser
    ones; the published detector has strides of 8 to 128, which are ``task.stages = [1, 2, 3]`` of
    most backbones. The finest map costs most, and small objects need it.

    Losses, each a sum divided by the number of positions of all images that learn an object:
    ``classes`` (focal loss, over all positions), ``boxes`` (generalized intersection over union)
    and ``centerness``. An image counts by the number of these positions: in smaller chunks of a
    batch, images with few or small objects count more than in the whole batch.

    ``torch.compile`` compiles the layers; the losses and the choice of results run as they are.

    Args:
        backbone: maps of several resolutions, with strides that double.
        num_classes: K.
        channels: width of all layers, a multiple of 32, at least 64.
        convs: number of 3x3 convolutions for classes, and as many for boxes.
        center_radius: positions learn an object that is at most so many strides away from its
            center.
        score_threshold: least score of a result.
        nms_threshold: of two boxes of a class with a larger intersection over union, the one with
            the lower score is left out.
        candidates: best results of each level that are compared.
        max_detections: most results per image.

    Raises:
        RecipeError: an option is out of its range, or strides of the maps do not double.
    """

    has_masks: ClassVar[bool] = False
    loss_names: ClassVar[tuple[str, ...]] = tuple(_LOSS_NAMES)

    def __init__(
        self,
        backbone: Pyramid,
        num_classes: int,
        channels: int = 256,
        convs: int = 4,
        center_radius: float = 1.5,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.6,
        candidates: int = 1000,
        max_detections: int = 100,
    ) -> None:
        super().__init__(backbone, num_classes)
        check_positive(
            convs=convs,
            center_radius=center_radius,
            candidates=candidates,
            max_detections=max_detections,
        )
        check_fractions(score_threshold=score_threshold, nms_threshold=nms_threshold)
        # A group needs several channels: a map of a single cell has no other values.
        if channels < 2 * _GROUPS or channels % _GROUPS:
            raise RecipeError(
                f"channels of detector 'fcos' must be a multiple of {_GROUPS} and at least "
                f"{2 * _GROUPS}, not {channels}"
            )
        _check_doubling(backbone.strides)
        self.neck = FeaturePyramid(backbone.channels, backbone.strides, channels, "convs")
        strides = self.neck.strides
        self.fcos = FCOS(
            _Width(channels),
            num_classes,
            anchor_generator=ExactAnchors(strides, (1.0,), strides),
            head=FCOSHead(channels, 1, num_classes, convs),
            center_sampling_radius=center_radius,
            score_thresh=score_threshold,
            nms_thresh=nms_threshold,
            detections_per_img=max_detections,
            topk_candidates=candidates,
        )

    def losses(
        self, images: Tensor, targets: Sequence[Target], sizes: Sequence[tuple[int, int]]
    ) -> dict[str, Tensor]:
        """The losses of ``loss_names``."""
        levels = self._levels(images)
        found = self._losses(images, levels, self._outputs(levels), targets)
        return {name: found[_LOSS_NAMES[name]] for name in self.loss_names}

    def forward(self, images: Tensor) -> list[Detected]:
        """(B, 3, height, width) -> the objects in each image."""
        levels = self._levels(images)
        return self._detect(images, levels, self._outputs(levels))

    def class_logits(self, maps: Sequence[Tensor], size: tuple[int, int], boxes: Tensor) -> Tensor:
        """The logits at the position whose own box is most like the given one: (B, K) fp32.

        Likeness is the generalized intersection over union.
        """
        levels = list(self.neck(maps).values())
        outputs = self._outputs(levels)
        anchors = torch.stack(self._anchors(size, levels))
        with torch.no_grad():
            decoded = self.fcos.box_coder.decode(outputs["bbox_regression"], anchors)
            positions = [
                int(generalized_box_iou(box[None].to(own), own).argmax())
                for box, own in zip(boxes, decoded, strict=True)
            ]
        return outputs["cls_logits"][range(len(boxes)), positions]

    def classifiers(self) -> Sequence[nn.Module]:
        """The last layer of the classes; boxes are the same for all."""
        return (self.fcos.head.classification_head.cls_logits,)

    def _levels(self, images: Tensor) -> list[Tensor]:
        return list(self.neck(self.backbone(images)).values())

    def _outputs(self, levels: Sequence[Tensor]) -> dict[str, Tensor]:
        """(B, positions, ...) fp32, because boxes are decoded in their type."""
        return {name: output.float() for name, output in self.fcos.head(list(levels)).items()}

    def _anchors(self, size: tuple[int, int], levels: Sequence[Tensor]) -> list[Tensor]:
        """(positions, 4) for each image of a size."""
        images = ImageList(levels[0], [size] * len(levels[0]))  # their pixels do not matter
        anchors: list[Tensor] = self.fcos.anchor_generator(images, levels)
        return anchors

    @torch.compiler.disable
    def _losses(
        self,
        images: Tensor,
        levels: Sequence[Tensor],
        outputs: dict[str, Tensor],
        targets: Sequence[Target],
    ) -> dict[str, Tensor]:
        """The losses by torchvision's names."""
        wanted = [{"boxes": target.boxes, "labels": target.labels} for target in targets]
        found: dict[str, Tensor] = self.fcos.compute_loss(
            wanted,
            outputs,
            self._anchors((images.shape[2], images.shape[3]), levels),
            _positions(levels),
        )
        return found

    @torch.compiler.disable
    def _detect(
        self, images: Tensor, levels: Sequence[Tensor], outputs: dict[str, Tensor]
    ) -> list[Detected]:
        numbers = _positions(levels)
        split = {name: list(output.split(numbers, 1)) for name, output in outputs.items()}
        size = (images.shape[2], images.shape[3])
        anchors = [list(each.split(numbers)) for each in self._anchors(size, levels)]
        sizes = [size] * len(images)
        return [
            Detected(found["boxes"], found["labels"], found["scores"])
            for found in self.fcos.postprocess_detections(split, anchors, sizes)
        ]


class _Width(nn.Module):
    """Stands for the backbone in torchvision's class, which only asks for the levels' width.

    Args:
        out_channels: of all levels.
    """

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels


def _positions(levels: Sequence[Tensor]) -> list[int]:
    """Number of positions of each level."""
    return [level.shape[2] * level.shape[3] for level in levels]


def _check_doubling(strides: Sequence[int]) -> None:
    """Raise RecipeError if some sizes of objects would suit no level, or several."""
    if any(coarse != 2 * fine for fine, coarse in itertools.pairwise(strides)):
        listed = ", ".join(map(str, strides))
        raise RecipeError(
            "detector 'fcos' needs maps whose strides double from one to the next, not "
            f"{listed}; choose others with task.stages, or the detector 'faster_rcnn'"
        )
