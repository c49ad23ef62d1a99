"""What the published Mask R-CNN does differently from torchvision's.

The detector of "PaCa-ViT" (Grainger et al., CVPR 2023) is that of mmdetection. The classes here
override single steps of torchvision's parts, and nothing else:

- anchors are exact, with fixed strides; torchvision rounds them, and divides the padded image by
  the grid;
- an anchor that overlaps an object more than all others do, but less than usual, is matched only
  from an intersection over union of 0.3;
- losses of boxes are L1; torchvision has smooth L1 with beta 1/9;
- targets of masks are pooled with aligned pixels and binarized;
- background is the last class, and has neither boxes nor masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import roi_align

from pacavit.detectors.parts import BoxPredictor, MaskPredictor

__all__ = [
    "ExactAnchors",
    "PublishedBoxPredictor",
    "PublishedMaskPredictor",
    "PublishedProposals",
    "PublishedRegions",
]

_LEAST_IOU = 0.3


class ExactAnchors(AnchorGenerator):
    """Boxes around the positions of each level: (anchors, 4) for each image.

    Args:
        sizes: of each level in pixels: the square root of the area of its anchors.
        ratios: height over width of the anchors at each position.
        strides: of each level.
    """

    def __init__(
        self, sizes: Sequence[float], ratios: Sequence[float], strides: Sequence[int]
    ) -> None:
        super().__init__(tuple((size,) for size in sizes), (tuple(ratios),) * len(sizes))
        self.strides = tuple(strides)

    def generate_anchors(
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> Tensor:
        """The anchors (ratios, 4) around the origin."""
        heights = torch.tensor(aspect_ratios, dtype=torch.float64).sqrt()[:, None]
        corners = torch.stack([1 / heights, heights], -1) * torch.tensor(scales)[:, None] / 2
        corners = corners.flatten(0, 1)
        return torch.cat([-corners, corners], 1).to(device, dtype)

    def forward(self, image_list: ImageList, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """Anchors of all levels, for each image."""
        self.set_cell_anchors(torch.float32, feature_maps[0].device)
        grids = [list(level.shape[2:]) for level in feature_maps]
        steps = [[stride, stride] for stride in self.strides]
        anchors = torch.cat(self.grid_anchors(grids, steps))
        return [anchors for _ in image_list.image_sizes]


class _MatcherFromLeast(Matcher):
    """An object claims its best anchors only from an overlap of ``_LEAST_IOU``.

    They are matched to that object even if they overlap another one more.
    """

    def set_low_quality_matches_(
        self, matches: Tensor, all_matches: Tensor, match_quality_matrix: Tensor
    ) -> None:
        """Change ``matches`` (anchors,) by the overlaps (objects, anchors)."""
        best = match_quality_matrix.amax(1, keepdim=True)
        claims = (match_quality_matrix == best) & (best >= _LEAST_IOU)
        objects, anchors = claims.nonzero(as_tuple=True)
        # Of several objects that claim an anchor the last one gets it.
        claimed = torch.full_like(matches, -1).scatter_reduce(0, anchors, objects, "amax")
        matches.copy_(torch.where(claimed >= 0, claimed, matches))


class PublishedProposals(RegionProposalNetwork):
    """A region proposal network with the published matches and losses."""

    def __init__(
        self, *args: Any, fg_iou_thresh: float, bg_iou_thresh: float, **kwargs: Any
    ) -> None:
        super().__init__(*args, fg_iou_thresh, bg_iou_thresh, **kwargs)
        self.proposal_matcher = _MatcherFromLeast(
            fg_iou_thresh, bg_iou_thresh, allow_low_quality_matches=True
        )

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: Sequence[Tensor],
        regression_targets: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Of objectness and boxes; means over the sampled anchors of all images."""
        positive, negative = (torch.cat(each).bool() for each in self.fg_bg_sampler(labels))
        sampled = positive | negative
        number = max(1, int(sampled.sum()))
        objects = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(list(labels))[sampled], reduction="sum"
        )
        boxes = F.l1_loss(
            pred_bbox_deltas[positive],
            torch.cat(list(regression_targets))[positive],
            reduction="sum",
        )
        return objects / number, boxes / number


class PublishedBoxPredictor(BoxPredictor):
    """(regions, C) -> logits (regions, K + 1) and boxes (regions, 4 K + 4), in fp32.

    The layers have background last and without a box; the outputs have it first, as torchvision's
    parts expect them.

    Args:
        in_channels: C.
        num_classes: K + 1, with background.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.bbox_pred = nn.Linear(in_channels, 4 * (num_classes - 1))
        for layer, deviation in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and encoded boxes of each class."""
        logits, boxes = super().forward(x)
        return logits.roll(1, dims=1), F.pad(boxes, (4, 0))


class PublishedMaskPredictor(MaskPredictor):
    """(regions, C, side, side) -> mask logits (regions, K + 1, 2 side, 2 side), in fp32.

    The layers have no background; the outputs have it first, as torchvision's parts expect them.

    Args:
        in_channels: C.
        hidden: channels of the enlarged map.
        num_classes: K + 1, with background.
    """

    def __init__(self, in_channels: int, hidden: int, num_classes: int) -> None:
        super().__init__(in_channels, hidden, num_classes - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each class and pixel."""
        return F.pad(super().forward(x), (0, 0, 0, 0, 1, 0))


class PublishedRegions(RoIHeads):
    """Heads of regions with the published losses."""

    def forward(
        self,
        features: Mapping[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """In training: no results, and losses by torchvision's names; else torchvision's own."""
        if not self.training:
            results, losses = super().forward(features, proposals, image_shapes, targets)
            return results, losses
        proposals, matched, labels, encoded = self.select_training_samples(proposals, targets)
        pooled = self.box_roi_pool(features, proposals, image_shapes)
        logits, boxes = self.box_predictor(self.box_head(pooled))
        found = _box_losses(logits, boxes, torch.cat(labels), torch.cat(encoded))
        if self.has_mask() and targets is not None:
            kept = [each > 0 for each in labels]
            regions = [each[keep] for each, keep in zip(proposals, kept, strict=True)]
            objects = [each[keep] for each, keep in zip(matched, kept, strict=True)]
            pooled = self.mask_roi_pool(features, regions, image_shapes)
            masks = self.mask_predictor(self.mask_head(pooled))
            wanted = [
                _mask_targets(target["masks"], region, chosen, masks.shape[-1])
                for target, region, chosen in zip(targets, regions, objects, strict=True)
            ]
            classes = torch.cat([each[keep] for each, keep in zip(labels, kept, strict=True)])
            found["loss_mask"] = _mask_loss(masks, classes, torch.cat(wanted))
        return [], found


def _box_losses(
    logits: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor
) -> dict[str, Tensor]:
    """Of classes and boxes; means over the sampled regions of all images."""
    number, rows = max(1, len(labels)), (labels > 0).nonzero()[:, 0]
    own = boxes.unflatten(1, (-1, 4))[rows, labels[rows]]
    return {
        "loss_classifier": F.cross_entropy(logits, labels, reduction="sum") / number,
        "loss_box_reg": F.l1_loss(own, targets[rows], reduction="sum") / number,
    }


def _mask_targets(masks: Tensor, boxes: Tensor, objects: Tensor, side: int) -> Tensor:
    """Masks (num, height, width) of objects -> those over boxes, (boxes, side, side) of 0 and 1.

    Args:
        masks: bool.
        boxes: (boxes, 4).
        objects: (boxes,) int64, the mask of each box.
        side: of the results.
    """
    rois = torch.cat([objects[:, None].to(boxes), boxes], 1)
    pooled: Tensor = roi_align(masks[:, None].to(boxes), rois, side, 1.0, 0, aligned=True)
    return (pooled[:, 0] >= 0.5).to(boxes)


def _mask_loss(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Mean over all pixels of the masks; 0 without masks."""
    own = logits[torch.arange(len(labels), device=labels.device), labels]
    summed = F.binary_cross_entropy_with_logits(own, targets, reduction="sum")
    return summed / max(1, targets.numel())
