"""Attention to a map that is pooled to a fixed size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.attention.base import ATTENTIONS
from pacavit.attention.extent import extent
from pacavit.attention.options import check_count
from pacavit.attention.qkv import QkvAttention
from pacavit.types import AttentionRecord, Grid, StageState
from pacavit.utils.linear import Linear

__all__ = ["PooledAttention"]


@ATTENTIONS.register("pooled")
class PooledAttention(QkvAttention):
    """Attention to P x P means of patches, linear in N: (B, N, C) -> (B, N, C).

    softmax(Q K^T / sqrt(d)) V, where keys and values are computed from
    GELU(LayerNorm(Linear(pooled map))), with adaptive average pooling to P x P cells: the cost is
    O(P^2 N). Wang et al., "PVT v2: Improved Baselines with Pyramid Vision Transformer" (linear
    spatial reduction, PVTv2-li), Computational Visual Media 2022,
    https://arxiv.org/abs/2106.13797.

    The cells divide each image, without its padding. A map with fewer than P x P patches is
    pooled to as many cells, which then overlap.

    Args:
        dim: channels C.
        num_heads: heads h.
        stage: index of the stage.
        block: index of the block in the stage.
        pool_size: P.
    """

    only_mixes: ClassVar[bool] = True

    def __init__(
        self, dim: int, num_heads: int, *, stage: int, block: int, pool_size: int = 7
    ) -> None:
        super().__init__(dim, num_heads, stage=stage, block=block)
        self.pool_size = check_count("pool_size", pool_size)
        self.reduce = Linear(dim, dim)  # a convolution of 1 x 1 in the paper
        self.norm = nn.LayerNorm(dim)

    def input_layers(self) -> Sequence[nn.Linear]:
        """The queries, and what reads the means of the cells."""
        return (self.q, self.reduce)

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        """(B, N, C) -> (B, N, C); the state is unchanged."""
        context, valid = self._context(x, grid, patch_mask)
        return self.attend(x, context, valid), state

    def recorded(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState, AttentionRecord]:
        """A key stands for the patches of its cell, all alike."""
        context, valid = self._context(x, grid, patch_mask)
        tokens, weights = self.attend_recorded(x, context, valid)
        rows, columns = self._cells(x, grid, patch_mask)
        members = rows[:, :, None, :, None] * columns[:, None, :, None]
        members = members.flatten(3).flatten(1, 2)
        if patch_mask is not None:
            members = members * patch_mask[:, None]
        keys = members / members.sum(2, keepdim=True).clamp(min=1)
        return tokens, state, AttentionRecord(weights, keys)

    def _context(
        self, x: Tensor, grid: Grid, patch_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """(B, N, C) -> (B, P x P, C), and (B, P x P) bool where a cell has patches, or None."""
        rows, columns = self._cells(x, grid, patch_mask)
        if patch_mask is None:
            sums = _pool(x, rows, columns, grid)
            sizes = (rows.sum(2)[:, :, None] * columns.sum(2)[:, None]).flatten(1)
            valid = None
        else:
            real = patch_mask[..., None].to(x)
            sums = _pool(x.masked_fill(~patch_mask[..., None], 0), rows, columns, grid)
            sizes = _pool(real, rows, columns, grid)[..., 0]
            valid = sizes > 0
        means = sums / sizes.clamp(min=1)[..., None]
        return F.gelu(self.norm(self.reduce(means))), valid

    def _cells(self, x: Tensor, grid: Grid, patch_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Which rows (B or 1, P, H) and columns (B or 1, P, W) belong to each cell: 0 or 1."""
        rows, columns = (
            _bins(length, self.pool_size, side).to(x)
            for length, side in zip(extent(grid, patch_mask, x.device), grid, strict=True)
        )
        return rows, columns


def _bins(length: Tensor, size: int, side: int) -> Tensor:
    """Adaptive bins of the first ``length`` (B,) of ``side`` places -> (B, size, side) bool.

    Matrices instead of ``F.adaptive_avg_pool2d``, whose exported program is for one size only.
    """
    index = torch.arange(size, device=length.device)
    first = index * length[:, None] // size
    last = ((index + 1) * length[:, None] + size - 1) // size
    place = torch.arange(side, device=length.device)
    return (place >= first[..., None]) & (place < last[..., None])


def _pool(x: Tensor, rows: Tensor, columns: Tensor, grid: Grid) -> Tensor:
    """Sums over the cells: (B, N, C) -> (B, P x P, C)."""
    bands = (rows @ x.unflatten(1, grid).flatten(2)).unflatten(2, (grid.width, -1))
    return (columns[:, None] @ bands).flatten(1, 2)
