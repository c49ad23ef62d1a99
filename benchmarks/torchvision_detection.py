"""Plug-in: torchvision's Faster and Mask R-CNN with MobileNetV3, trained and measured as ours.

::

    pacavit --plugin benchmarks/torchvision_detection.py train bccd_nano --data ROOT --out DIR \
        --set model.init=null --set task.detector=torchvision_faster_rcnn \
        --set 'task.detector_options={}'

The pyramid, the heads and all settings are torchvision's; preprocessing, optimizer and measures are
those of the recipe, whose ``[model]`` section is ignored. The sizes of anchors can be set, because
torchvision's smallest, 32 pixels, are larger than cells and nuclei.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import _mobilenet_extractor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList

from pacavit.detectors import DETECTORS, Detected, Detector, Target
from pacavit.models import Pyramid

__all__ = ["TorchvisionFasterRcnn", "TorchvisionMaskRcnn"]

_ALL_LAYERS = 6  # are trained
_MAPS = 3
_RATIOS = (0.5, 1.0, 2.0)
_LOSS_NAMES = {
    "rpn_objectness": "loss_objectness",
    "rpn_boxes": "loss_rpn_box_reg",
    "classes": "loss_classifier",
    "boxes": "loss_box_reg",
    "masks": "loss_mask",
}


@DETECTORS.register("torchvision_faster_rcnn")
class TorchvisionFasterRcnn(Detector):
    """Faster R-CNN with MobileNetV3-Large and a feature pyramid, randomly initialized.

    As ``torchvision.models.detection.fasterrcnn_mobilenet_v3_large_fpn``.

    Args:
        backbone: is ignored.
        num_classes: K.
        anchor_sizes: sides in pixels of the anchors at every position of every map.
        max_detections: most results per image.
    """

    has_masks: ClassVar[bool] = False
    loss_names: ClassVar[tuple[str, ...]] = ("rpn_objectness", "rpn_boxes", "classes", "boxes")

    def __init__(
        self,
        backbone: Pyramid,
        num_classes: int,
        anchor_sizes: Sequence[int] = (32, 64, 128, 256, 512),
        max_detections: int = 100,
    ) -> None:
        # The pyramid is not kept: its parameters would be counted, and never trained.
        nn.Module.__init__(self)
        self.num_classes = num_classes
        network = mobilenet_v3_large(weights=None, norm_layer=nn.BatchNorm2d)
        self.backbone = _mobilenet_extractor(network, True, _ALL_LAYERS)
        anchors = AnchorGenerator((tuple(anchor_sizes),) * _MAPS, (_RATIOS,) * _MAPS)
        whole = self._network(anchors, max_detections)
        self.rpn, self.roi_heads = whole.rpn, whole.roi_heads

    def _network(self, anchors: AnchorGenerator, max_detections: int) -> GeneralizedRCNN:
        return FasterRCNN(
            self.backbone,
            self.num_classes + 1,
            rpn_anchor_generator=anchors,
            box_detections_per_img=max_detections,
        )

    def losses(
        self, images: Tensor, targets: Sequence[Target], sizes: Sequence[tuple[int, int]]
    ) -> dict[str, Tensor]:
        """The losses of ``loss_names``; in training mode."""
        wanted = [
            {"boxes": each.boxes, "labels": each.labels + 1}
            | ({} if each.masks is None else {"masks": each.masks.to(torch.uint8)})
            for each in targets
        ]
        maps = self.backbone(images)
        proposals, first = self.rpn(ImageList(images, list(sizes)), maps, wanted)
        _, second = self.roi_heads(maps, proposals, list(sizes), wanted)
        found = first | second
        return {name: found[_LOSS_NAMES[name]] for name in self.loss_names}

    def forward(self, images: Tensor) -> list[Detected]:
        """(B, 3, height, width) -> the objects in each image; in evaluation mode."""
        sizes = [(images.shape[2], images.shape[3])] * len(images)
        maps = self.backbone(images)
        proposals, _ = self.rpn(ImageList(images, sizes), maps)
        results, _ = self.roi_heads(maps, proposals, sizes)
        return [
            Detected(
                each["boxes"].float(),
                each["labels"] - 1,
                each["scores"].float(),
                each["masks"][:, 0].float() if self.has_masks else None,
            )
            for each in results
        ]

    def class_logits(self, maps: Sequence[Tensor], size: tuple[int, int], boxes: Tensor) -> Tensor:
        """Not offered: the peer is measured, not explained."""
        raise NotImplementedError

    def classifiers(self) -> Sequence[nn.Module]:
        """The last layers of classes and boxes."""
        predictor = self.roi_heads.box_predictor
        return (predictor.cls_score, predictor.bbox_pred)


@DETECTORS.register("torchvision_mask_rcnn")
class TorchvisionMaskRcnn(TorchvisionFasterRcnn):
    """The same with torchvision's head of masks, which it offers for any backbone.

    Args:
        backbone: is ignored.
        num_classes: K.
        anchor_sizes: sides in pixels of the anchors at every position of every map.
        max_detections: most results per image.
    """

    has_masks: ClassVar[bool] = True
    loss_names: ClassVar[tuple[str, ...]] = (*TorchvisionFasterRcnn.loss_names, "masks")

    def _network(self, anchors: AnchorGenerator, max_detections: int) -> GeneralizedRCNN:
        return MaskRCNN(
            self.backbone,
            self.num_classes + 1,
            rpn_anchor_generator=anchors,
            box_detections_per_img=max_detections,
        )
