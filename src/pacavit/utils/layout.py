"""Tokens to maps and back without a copy, in memory always channels-last; maps of other sizes.

PyTorch recognizes channels-last maps by their strides. The stride of an axis of length 1 is
arbitrary, and ``unflatten`` on an axis behind it may choose one that hides the layout: at batch 1
a depthwise convolution then returns a contiguous map, and every later layer copies. ``permute``
keeps all strides, so maps are made with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from pacavit.types import Grid

__all__ = ["enlarge", "map_of", "tokens_of"]


def tokens_of(x: Tensor) -> tuple[Tensor, Grid]:
    """(B, C, H, W) -> (B, N, C) tokens and their grid; no copy when the map is channels-last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2), Grid(x.shape[2], x.shape[3])


def map_of(tokens: Tensor, grid: Grid) -> Tensor:
    """(B, N, C) -> a channels-last view (B, C, H, W)."""
    return tokens.unflatten(1, grid).permute(0, 3, 1, 2)


def enlarge(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, h, w) -> (B, C, H, W), bilinear; ``size`` is (H, W)."""
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=False)
