"""Mask R-CNN: boxes in two stages, and a mask for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads

from pacavit.detectors.base import DETECTORS, Target
from pacavit.detectors.faster_rcnn import FasterRcnn
from pacavit.detectors.options import check_positive
from pacavit.detectors.parts import MaskPredictor
from pacavit.detectors.published import PublishedMaskPredictor
from pacavit.models import Pyramid

__all__ = ["MaskRcnn"]


@DETECTORS.register("mask_rcnn")
class MaskRcnn(FasterRcnn):
    """Boxes in two stages as in ``faster_rcnn``, and a mask for each.

    He et al., "Mask R-CNN", ICCV 2017. The loss ``masks`` is the mean over the pixels of the masks
    of all sampled regions that match an object, so that an image counts by the number of these: in
    smaller chunks of a batch, images with few objects count more than in the whole batch.

    Args:
        backbone: maps of several resolutions.
        num_classes: K.
        variant: "published", the detector of the paper, or "torchvision". They differ as those of
            :class:`~pacavit.detectors.faster_rcnn.FasterRcnn` do, and in the targets of masks.
        channels: width of the feature pyramid.
        anchor_sizes: as for ``FasterRcnn``, like the next seven.
        anchor_ratios: height over width of the anchors at each position.
        rpn_anchors: anchors per image that the losses of proposals are computed from.
        proposals_before_nms: best proposals of each level, in training and in evaluation.
        proposals: those of an image that are left, in training and in evaluation.
        box_rois: regions per image that the losses of classes and boxes are computed from.
        box_pooling: side of the pooled map of a region for its class and box.
        fc_channels: width of the two layers of each region.
        mask_pooling: side of the pooled map of a region; its mask has twice as many pixels a side.
        mask_channels: width of the layers that compute masks.
        mask_convs: number of 3x3 convolutions among them.
        score_threshold: least score of a result.
        nms_threshold: as for ``FasterRcnn``.
        max_detections: most results per image.

    Raises:
        RecipeError: an option is out of its range.
    """

    has_masks: ClassVar[bool] = True
    loss_names: ClassVar[tuple[str, ...]] = (*FasterRcnn.loss_names, "masks")

    def __init__(
        self,
        backbone: Pyramid,
        num_classes: int,
        variant: str = "published",
        channels: int = 256,
        anchor_sizes: Sequence[float] | None = None,
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        rpn_anchors: int = 256,
        proposals_before_nms: tuple[int, int] = (2000, 1000),
        proposals: tuple[int, int] | None = None,
        box_rois: int = 512,
        box_pooling: int = 7,
        fc_channels: int = 1024,
        mask_pooling: int = 14,
        mask_channels: int = 256,
        mask_convs: int = 4,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__(
            backbone,
            num_classes,
            variant,
            channels,
            anchor_sizes,
            anchor_ratios,
            rpn_anchors,
            proposals_before_nms,
            proposals,
            box_rois,
            box_pooling,
            fc_channels,
            score_threshold,
            nms_threshold,
            max_detections,
        )
        check_positive(
            mask_pooling=mask_pooling, mask_channels=mask_channels, mask_convs=mask_convs
        )
        predictor = PublishedMaskPredictor if self.published else MaskPredictor
        self.roi_heads.mask_roi_pool = self._pooler(mask_pooling)
        self.roi_heads.mask_head = MaskRCNNHeads(channels, [mask_channels] * mask_convs, 1)
        self.roi_heads.mask_predictor = predictor(mask_channels, mask_channels, num_classes + 1)

    def classifiers(self) -> Sequence[nn.Module]:
        """The last layers of classes, boxes and masks: each class has a box and a mask."""
        return (*super().classifiers(), self.roi_heads.mask_predictor.mask_fcn_logits)

    def _target(self, target: Target) -> dict[str, Tensor]:
        if target.masks is None:
            raise ValueError("mask_rcnn learns from masks, and a target has none")
        return super()._target(target) | {"masks": target.masks}
