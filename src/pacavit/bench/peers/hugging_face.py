"""PVT and CvT of the library transformers, as networks from images to logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

__all__ = ["cvt", "pvt"]


class Logits(nn.Module):
    """A classifier of transformers: (B, 3, height, width) -> (B, classes) of its output."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, height, width) -> (B, classes)."""
        logits: Tensor = self.network(images).logits
        return logits


def pvt(depths: Sequence[int], size: int) -> Logits:
    """PVT: Wang et al., ICCV 2021, https://arxiv.org/abs/2102.12122.

    Args:
        depths: blocks of each stage.
        size: side of the image in pixels, which the position embeddings are made for.
    """
    from transformers import PvtConfig, PvtForImageClassification

    config = PvtConfig(depths=list(depths), image_size=size, num_labels=1000)
    return Logits(PvtForImageClassification(config))


def cvt(depths: Sequence[int]) -> Logits:
    """CvT, for images of any size: Wu et al., ICCV 2021, https://arxiv.org/abs/2103.15808.

    Args:
        depths: blocks of each stage.
    """
    from transformers import CvtConfig, CvtForImageClassification

    return Logits(CvtForImageClassification(CvtConfig(depth=list(depths), num_labels=1000)))
