"""Faster R-CNN: boxes in two stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from pacavit.detectors.base import DETECTORS, Detected, Detector, Target
from pacavit.detectors.neck import FeaturePyramid
from pacavit.detectors.options import check_fractions, check_pair, check_positive
from pacavit.detectors.parts import (
    Anchors,
    BoxPredictor,
    ProposalHead,
    RegionPooler,
)
from pacavit.detectors.published import (
    ExactAnchors,
    PublishedBoxPredictor,
    PublishedProposals,
    PublishedRegions,
)
from pacavit.errors import RecipeError
from pacavit.models import Pyramid

__all__ = ["FasterRcnn"]

_ANCHOR_STRIDES = 8  # usual size of an anchor, in strides of its level

# Settings of torchvision's parts; the same in both variants.
_PROPOSAL_SETTINGS = {
    "fg_iou_thresh": 0.7,
    "bg_iou_thresh": 0.3,
    "positive_fraction": 0.5,
    "nms_thresh": 0.7,
}
_REGION_SETTINGS = {
    "fg_iou_thresh": 0.5,
    "bg_iou_thresh": 0.5,
    "positive_fraction": 0.25,
    "bbox_reg_weights": (10.0, 10.0, 5.0, 5.0),
}
_LOSS_NAMES = {
    "rpn_objectness": "loss_objectness",
    "rpn_boxes": "loss_rpn_box_reg",
    "classes": "loss_classifier",
    "boxes": "loss_box_reg",
    "masks": "loss_mask",
}


@DETECTORS.register("faster_rcnn")
class FasterRcnn(Detector):
    """Boxes in two stages: regions that may hold an object, then a class and a box for each.

    Ren et al., "Faster R-CNN", NeurIPS 2015, on a feature pyramid (Lin et al., CVPR 2017): the
    parts of torchvision, with a backbone of any library.

    Losses: ``rpn_objectness`` and ``rpn_boxes`` are sums over the anchors sampled for the proposals
    divided by their number, ``classes`` and ``boxes`` likewise over the sampled regions. All images
    count the same as long as each yields the usual numbers (``rpn_anchors``, ``box_rois``), and the
    means over chunks of a batch are those over the batch; where small images have fewer anchors or
    regions, an image in a smaller chunk counts slightly more.

    ``torch.compile`` compiles the backbone and the feature pyramid; the rest, whose shapes change
    from image to image, runs as it is.

    Args:
        backbone: maps of several resolutions.
        num_classes: K.
        variant: "published", the detector of the paper, or "torchvision". They differ in the
            sampling of regions, the losses of boxes, the matching of anchors, their rounding, the
            number of proposals in training, and the place of the background among the classes.
        channels: width of the feature pyramid.
        anchor_sizes: side in pixels of a square anchor of each level; the levels are the maps and a
            coarser one. None: 8 times the stride of the level, 32 to 512 at strides of 4 to 64.
        anchor_ratios: height over width of the anchors at each position.
        rpn_anchors: anchors per image that the losses of proposals are computed from; up to half
            of them match an object.
        proposals_before_nms: best proposals of each level, in training and in evaluation.
        proposals: those of an image that are left after non-maximum suppression, in training and in
            evaluation. None: (1000, 1000) in the published variant, (2000, 1000) in the other.
        box_rois: regions per image that the losses of classes and boxes are computed from; up to a
            quarter of them match an object.
        box_pooling: side of the pooled map of a region.
        fc_channels: width of the two layers of each region.
        score_threshold: least score of a result.
        nms_threshold: of two boxes of a class with a larger intersection over union, the one with
            the lower score is left out.
        max_detections: most results per image.

    Raises:
        RecipeError: an option is out of its range.
    """

    has_masks: ClassVar[bool] = False
    loss_names: ClassVar[tuple[str, ...]] = ("rpn_objectness", "rpn_boxes", "classes", "boxes")

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
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__(backbone, num_classes)
        if variant not in ("published", "torchvision"):
            raise RecipeError(
                f"variant of a detector must be 'published' or 'torchvision', not {variant!r}"
            )
        self.published = variant == "published"
        if proposals is None:
            proposals = (1000, 1000) if self.published else (2000, 1000)
        check_positive(
            rpn_anchors=rpn_anchors,
            box_rois=box_rois,
            box_pooling=box_pooling,
            fc_channels=fc_channels,
            max_detections=max_detections,
            anchor_ratios=anchor_ratios,
        )
        check_pair(proposals_before_nms=proposals_before_nms, proposals=proposals)
        check_fractions(score_threshold=score_threshold, nms_threshold=nms_threshold)
        self.neck = FeaturePyramid(backbone.channels, backbone.strides, channels)
        before, after = (
            dict(zip(("training", "testing"), numbers, strict=True))
            for numbers in (proposals_before_nms, proposals)
        )
        self.rpn: RegionProposalNetwork = (
            PublishedProposals if self.published else RegionProposalNetwork
        )(
            self._anchors(anchor_sizes, anchor_ratios),
            ProposalHead(channels, len(anchor_ratios)),
            batch_size_per_image=rpn_anchors,
            pre_nms_top_n=before,
            post_nms_top_n=after,
            **_PROPOSAL_SETTINGS,
        )
        predictor = PublishedBoxPredictor if self.published else BoxPredictor
        self.roi_heads: RoIHeads = (PublishedRegions if self.published else RoIHeads)(
            self._pooler(box_pooling),
            TwoMLPHead(channels * box_pooling**2, fc_channels),
            predictor(fc_channels, num_classes + 1),
            batch_size_per_image=box_rois,
            score_thresh=score_threshold,
            nms_thresh=nms_threshold,
            detections_per_img=max_detections,
            **_REGION_SETTINGS,
        )

    def losses(
        self, images: Tensor, targets: Sequence[Target], sizes: Sequence[tuple[int, int]]
    ) -> dict[str, Tensor]:
        """The losses of ``loss_names``; in training mode."""
        levels = self.neck(self.backbone(images))
        found = self._losses(images, levels, targets, sizes)
        return {name: found[_LOSS_NAMES[name]] for name in self.loss_names}

    def forward(self, images: Tensor) -> list[Detected]:
        """(B, 3, height, width) -> the objects in each image; in evaluation mode."""
        return self._detect(images, self.neck(self.backbone(images)))

    def class_logits(self, maps: Sequence[Tensor], size: tuple[int, int], boxes: Tensor) -> Tensor:
        """The logits of the classes for a box, as the second stage computes them: (B, K) fp32.

        The box is the region; no proposals are computed.
        """
        heads = self.roi_heads
        pooled = heads.box_roi_pool(self.neck(maps), list(boxes.split(1)), [size] * len(boxes))
        logits, _ = heads.box_predictor(heads.box_head(pooled))
        of_objects: Tensor = logits[:, 1:]
        return of_objects

    def classifiers(self) -> Sequence[nn.Module]:
        """The last layers of classes and boxes, because each class has a box of its own."""
        predictor = self.roi_heads.box_predictor
        return (predictor.cls_score, predictor.bbox_pred)

    @torch.compiler.disable
    def _losses(
        self,
        images: Tensor,
        levels: Mapping[str, Tensor],
        targets: Sequence[Target],
        sizes: Sequence[tuple[int, int]],
    ) -> dict[str, Tensor]:
        """The losses by torchvision's names."""
        wanted = [self._target(target) for target in targets]
        proposals, found = self.rpn(ImageList(images, list(sizes)), levels, wanted)
        _, of_regions = self.roi_heads(levels, proposals, list(sizes), wanted)
        return found | of_regions

    def _target(self, target: Target) -> dict[str, Tensor]:
        """A target as torchvision's parts expect it, in which background is class 0."""
        return {"boxes": target.boxes, "labels": target.labels + 1}

    @torch.compiler.disable
    def _detect(self, images: Tensor, levels: Mapping[str, Tensor]) -> list[Detected]:
        sizes = [(images.shape[2], images.shape[3])] * len(images)
        proposals, _ = self.rpn(ImageList(images, sizes), levels)
        results, _ = self.roi_heads(levels, proposals, sizes)
        return [
            Detected(
                found["boxes"],
                found["labels"] - 1,
                found["scores"],
                found["masks"][:, 0] if self.has_masks else None,
            )
            for found in results
        ]

    def _anchors(self, sizes: Sequence[float] | None, ratios: Sequence[float]) -> nn.Module:
        strides = self.neck.strides
        if sizes is None:
            sizes = [_ANCHOR_STRIDES * stride for stride in strides]
        check_positive(anchor_sizes=sizes)
        if len(sizes) != len(strides):
            listed = ", ".join(map(str, strides))
            raise RecipeError(
                f"anchor_sizes of a detector must be {len(strides)} numbers, one for each level of "
                f"strides {listed}, not {len(sizes)}"
            )
        if self.published:
            return ExactAnchors(sizes, ratios, strides)
        return Anchors(tuple((size,) for size in sizes), (tuple(ratios),) * len(sizes))

    def _pooler(self, side: int) -> RegionPooler:
        return RegionPooler(
            side,
            self.neck.strides[: self.neck.num_maps],
            sampling_ratio=0 if self.published else 2,
            aligned=self.published,
        )
