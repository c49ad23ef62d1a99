"""Attention to a reduced map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.attention.base import ATTENTIONS
from pacavit.attention.options import check_count
from pacavit.attention.partition import WindowPartition
from pacavit.attention.qkv import QkvAttention
from pacavit.types import AttentionRecord, Grid, StageState
from pacavit.utils.folding import fold_layer_norm, has_own

__all__ = ["SpatialReduction", "SpatialReductionAttention", "reduction_ratio"]

_RATIOS = (8, 4, 2, 1)
"""R of the stages of PVT and Twins, which reduce each map to the size of the fourth stage's."""


def reduction_ratio(sr_ratio: int | None, stage: int) -> int:
    """R from the option ``sr_ratio``; None is 8, 4, 2, 1 by stage, and 1 in later ones."""
    if sr_ratio is None:
        return _RATIOS[min(stage, len(_RATIOS) - 1)]
    return check_count("sr_ratio", sr_ratio)


class SpatialReduction(nn.Module):
    """LayerNorm of a convolution of R x R with stride R: (B, N, C) -> (B, K, C).

    K = ceil(H / R) x ceil(W / R): a map whose sides are no multiples of R is filled up with zeros
    on the right and below. R = 1 leaves the tokens as they are.

    Args:
        dim: channels C.
        ratio: R.
    """

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.conv = nn.Conv2d(dim, dim, ratio, stride=ratio) if ratio > 1 else None
        self.norm = nn.LayerNorm(dim) if ratio > 1 else nn.Identity()

    def forward(
        self, x: Tensor, grid: Grid, patch_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """(B, N, C) -> (B, K, C), and (B, K) bool, False where a key is all padding, or None."""
        if self.conv is None:
            return x, patch_mask
        # The convolution as a matrix product of its windows: a traced convolution would be bound
        # to maps that are reduced to more than one row and one column.
        cells = WindowPartition(grid, self.ratio, x.device, clip=False)
        real = cells.real(patch_mask)
        windows = cells.split(x)
        if not cells.full or patch_mask is not None:
            windows = windows.masked_fill(~real[..., None], 0)
        kernel = self.conv.weight.permute(0, 2, 3, 1).flatten(1)
        reduced = F.linear(windows.flatten(2), kernel, self.conv.bias)
        all_valid = patch_mask is None and not cells.spare
        return self.norm(reduced), None if all_valid else real.any(2).expand(x.shape[0], -1)

    def keys(self, x: Tensor, grid: Grid, patch_mask: Tensor | None) -> Tensor | None:
        """The patches of each key: (B or 1, K, N), rows sum to 1, or to 0; None if K = N.

        Args:
            x: (B, N, C) tokens, for the device and the type.
            grid: height and width.
            patch_mask: (B, N) bool, False where a patch is padding.
        """
        if self.conv is None:
            return None
        cells = WindowPartition(grid, self.ratio, x.device, clip=False)
        index = torch.arange(cells.source.shape[0], device=x.device)[:, None]
        members = (cells.place // cells.source.shape[1] == index)[None]
        if patch_mask is not None:
            members = members & patch_mask[:, None]
        weights = members.to(x)
        return weights / weights.sum(2, keepdim=True).clamp(min=1)


@ATTENTIONS.register("spatial_reduction")
class SpatialReductionAttention(QkvAttention):
    """Attention to a map reduced by a strided convolution: (B, N, C) -> (B, N, C).

    softmax(Q K^T / sqrt(d)) V, where keys and values are computed from
    LayerNorm(convolution of R x R patches, stride R). The cost is O(N^2 / R^2). Wang et al.,
    "Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without Convolutions",
    ICCV 2021, https://arxiv.org/abs/2102.12122.

    Args:
        dim: channels C.
        num_heads: heads h.
        stage: index of the stage.
        block: index of the block in the stage.
        sr_ratio: R, in patches; None is the paper's 8, 4, 2, 1 by stage. 1 is full attention.
    """

    only_mixes: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        stage: int,
        block: int,
        sr_ratio: int | None = None,
    ) -> None:
        super().__init__(dim, num_heads, stage=stage, block=block)
        self.reduction = SpatialReduction(dim, reduction_ratio(sr_ratio, stage))

    def fold(self, *, half: bool) -> None:
        """Fold the norm of the reduced map into keys and values too; nothing else reads it."""
        super().fold(half=half)
        if has_own(self, "input_layers"):
            fold_layer_norm(self.reduction.norm, [self.k, self.v])

    def input_layers(self) -> Sequence[nn.Linear]:
        """The projections, if the map is not reduced: its convolution sees zeros around it."""
        return () if self.reduction.conv is not None else (self.q, self.k, self.v)

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        """(B, N, C) -> (B, N, C); the state is unchanged."""
        context, valid = self.reduction(x, grid, patch_mask)
        return self.attend(x, context, valid), state

    def recorded(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState, AttentionRecord]:
        """A key stands for its R x R patches, all alike."""
        context, valid = self.reduction(x, grid, patch_mask)
        tokens, weights = self.attend_recorded(x, context, valid)
        keys = self.reduction.keys(x, grid, patch_mask)
        return tokens, state, AttentionRecord(weights, keys)
