"""Attention to learned linear combinations of keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from pacavit.attention.base import ATTENTIONS
from pacavit.attention.extent import extent
from pacavit.attention.options import check_count
from pacavit.attention.qkv import QkvAttention
from pacavit.types import AttentionRecord, Grid, StageState
from pacavit.utils.exporting import smaller

__all__ = ["LinformerAttention"]


@ATTENTIONS.register("linformer")
class LinformerAttention(QkvAttention):
    """Attention to k learned combinations of the patches, linear in N: (B, N, C) -> (B, N, C).

    softmax(Q (E K)^T / sqrt(d)) F V with learned E and F of shape (k, N), shared by the heads.
    The cost is O(k N). Wang et al., "Linformer: Self-Attention with Linear Complexity", 2020,
    https://arxiv.org/abs/2006.04768.

    The paper's E and F are for one N. Here they are stored for a square of patches, interpolated
    linearly to the size of each image, and divided by the factor by which the number of patches
    grows. On maps with fewer than k patches, only the first N rows are used.

    Args:
        dim: channels C.
        num_heads: heads h.
        stage: index of the stage.
        block: index of the block in the stage.
        num_keys: k.
        base_size: side of the square, in patches; with that of the map, E and F are the paper's.
    """

    only_mixes: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        stage: int,
        block: int,
        num_keys: int = 256,
        base_size: int = 16,
    ) -> None:
        super().__init__(dim, num_heads, stage=stage, block=block)
        self.num_keys = check_count("num_keys", num_keys)
        self.base_size = check_count("base_size", base_size)
        shape, std = (num_keys, base_size, base_size), num_keys**-0.5
        self.project_k = nn.Parameter(torch.empty(shape).normal_(std=std))
        self.project_v = nn.Parameter(torch.empty(shape).normal_(std=std))

    def input_layers(self) -> Sequence[nn.Linear]:
        """The projections, which come before E and F."""
        return (self.q, self.k, self.v)

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        """(B, N, C) -> (B, N, C); the state is unchanged."""
        e, f, valid = self._projections(x, grid, patch_mask)
        return self.mix(self.q(x), e @ self.k(x), f @ self.v(x), valid), state

    def recorded(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState, AttentionRecord]:
        """A key stands for the patches of its value, by the absolute values of F."""
        e, f, valid = self._projections(x, grid, patch_mask)
        tokens, weights = self.mix_recorded(self.q(x), e @ self.k(x), f @ self.v(x), valid)
        keys = f.detach().abs()
        if valid is not None:
            keys = keys * valid[..., None]
        return tokens, state, AttentionRecord(weights, keys / keys.sum(2, keepdim=True).clamp(1e-9))

    def _projections(
        self, x: Tensor, grid: Grid, patch_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """E and F for this map, (B or 1, K, N) each, and (B, K) bool where a row is used, or None.

        K is the smaller of k and N.
        """
        height, width = extent(grid, patch_mask, x.device)
        precise = torch.promote_types(x.dtype, torch.float32)
        rows, columns = (
            _interpolation(length.to(precise), self.base_size, side).to(x)
            for length, side in zip((height, width), grid, strict=True)
        )
        patches = height * width
        factor = self.base_size**2 / patches[:, None, None].to(x)
        if patch_mask is not None:
            factor = factor * patch_mask[:, None]
        num_keys = smaller(self.num_keys, grid.num_patches)
        e, f = (
            factor * (rows[:, None] @ stored[:num_keys].to(x) @ columns.mT[:, None]).flatten(2)
            for stored in (self.project_k, self.project_v)
        )
        if patch_mask is None:
            return e, f, None
        return e, f, torch.arange(num_keys, device=x.device) < patches[:, None]


def _interpolation(length: Tensor, size: int, side: int) -> Tensor:
    """Linear interpolation from ``size`` samples to the first ``length`` (B,) places.

    Each place of an image lies in the middle of its cell. A shorter axis takes means over wider
    triangles, so that no sample is skipped.

    Returns:
        (B, side, size) of the type of ``length``, rows sum to 1.
    """
    place = torch.arange(side, device=length.device, dtype=length.dtype)
    sample = torch.arange(size, device=length.device)
    step = (size / length)[:, None]
    middle = ((place + 0.5) * step - 0.5).clamp(0, size - 1)
    distance = (middle[..., None] - sample).abs() / step.clamp(min=1)[..., None]
    weights = (1 - distance).clamp(min=0)
    return weights / weights.sum(2, keepdim=True)
