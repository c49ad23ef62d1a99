"""torchvision's parts of detectors in fp32 and for any strides.

Under autocast to bfloat16 the outputs of heads would be decoded in bfloat16, in which coordinates
beyond 512 are multiples of 4 pixels. Here heads return fp32, and anchors and pooled regions are
fp32 too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import box_area, roi_align

__all__ = ["Anchors", "BoxPredictor", "MaskPredictor", "ProposalHead", "RegionPooler"]

# A box of so many pixels a side is pooled from the map of this stride: eq. 1 of the FPN paper.
_USUAL_SIDE, _USUAL_STRIDE_LOG2 = 224, 4


class Anchors(AnchorGenerator):
    """torchvision's anchors, in fp32."""

    def forward(self, image_list: ImageList, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """(anchors, 4) of all levels, for each image."""
        # Only the type and the size of the maps matter.
        anchors: list[Tensor] = super().forward(
            image_list, [level[:0].float() for level in feature_maps]
        )
        return anchors


class ProposalHead(RPNHead):
    """Levels (B, C, H, W) -> objectness (B, A, H, W) and boxes (B, 4 A, H, W) of each, in fp32."""

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Of A anchors at each position."""
        objectness, boxes = super().forward(list(levels))
        return [each.float() for each in objectness], [each.float() for each in boxes]


class BoxPredictor(FastRCNNPredictor):
    """(regions, C) -> logits (regions, K + 1) and boxes (regions, 4 K + 4), in fp32.

    Background is class 0.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and encoded boxes of each class."""
        logits, boxes = super().forward(x)
        return logits.float(), boxes.float()


class MaskPredictor(MaskRCNNPredictor):
    """(regions, C, side, side) -> mask logits (regions, K + 1, 2 side, 2 side), in fp32.

    Background is class 0.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each class and pixel."""
        logits: Tensor = super().forward(x)
        return logits.float()


class RegionPooler(nn.Module):
    """Boxes -> their features (regions, C, side, side) in fp32, by RoIAlign.

    He et al., "Mask R-CNN", ICCV 2017. Each box is pooled from the level whose stride suits its
    size. Unlike torchvision's ``MultiScaleRoIAlign``, strides are given, not guessed from the first
    images, and need not double from level to level.

    Args:
        side: of the pooled maps.
        strides: of the levels that are pooled from, finest first; further levels are ignored.
        sampling_ratio: samples along each side of a cell; 0: as many as it has pixels of the level.
        aligned: boxes are shifted by half a pixel of the level, so that pixels have their centers
            in the middle.
    """

    def __init__(
        self, side: int, strides: Sequence[int], *, sampling_ratio: int, aligned: bool
    ) -> None:
        super().__init__()
        self.side, self.strides = side, tuple(strides)
        self.sampling_ratio, self.aligned = sampling_ratio, aligned

    def forward(
        self,
        levels: Mapping[str, Tensor],
        boxes: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Levels (B, C, H, W) and boxes (num, 4) of each image -> features of all boxes in order.

        ``image_sizes`` are ignored; torchvision's heads give them.
        """
        pooled_from = list(levels.values())[: len(self.strides)]
        rois = torch.cat([F.pad(each, (1, 0), value=image) for image, each in enumerate(boxes)])
        level_of = self.level_of(rois[:, 1:])
        rows, pooled = [], []
        for index, (level, stride) in enumerate(zip(pooled_from, self.strides, strict=True)):
            rows.append((level_of == index).nonzero()[:, 0])
            features = roi_align(
                level.float(),
                rois[rows[-1]],
                self.side,
                1 / stride,
                self.sampling_ratio,
                self.aligned,
            )
            pooled.append(features)
        return torch.cat(pooled)[torch.cat(rows).argsort()]

    def level_of(self, boxes: Tensor) -> Tensor:
        """Boxes (num, 4) -> positions of their levels (num,) int64.

        It is the coarsest level whose stride is at most 16 for a box of 224 pixels a side, at most
        8 for one of 112 pixels, and so on.
        """
        sides = box_area(boxes).sqrt()
        largest = (_USUAL_STRIDE_LOG2 + (sides / _USUAL_SIDE).log2() + 1e-6).floor()
        strides = torch.tensor(self.strides, dtype=torch.float32, device=boxes.device).log2()
        return (strides <= largest[:, None]).sum(1).clamp_min(1) - 1
