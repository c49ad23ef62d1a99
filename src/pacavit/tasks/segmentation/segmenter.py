"""A backbone and a segmentation head as one network."""

from __future__ import annotations

from torch import Tensor, nn

from pacavit.heads import HeadOutput, SegmentationHead
from pacavit.models import Pyramid

__all__ = ["Segmenter"]


class Segmenter(nn.Module):
    """(B, 3, height, width) -> logits (B, classes, H, W) of the head, coarser than the image.

    Args:
        backbone: maps of several resolutions.
        head: of these maps.
    """

    def __init__(self, backbone: Pyramid, head: SegmentationHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> HeadOutput:
        """Logits, and further logits that are supervised in training."""
        output: HeadOutput = self.head(self.backbone(images))
        return output
