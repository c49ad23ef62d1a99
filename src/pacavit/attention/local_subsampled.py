"""Attention inside of windows and attention to a reduced map by turns."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pacavit.attention.base import ATTENTIONS
from pacavit.attention.options import check_count
from pacavit.attention.partition import WindowPartition
from pacavit.attention.qkv import QkvAttention
from pacavit.attention.spatial_reduction import SpatialReduction, reduction_ratio
from pacavit.types import AttentionRecord, Grid, StageState
from pacavit.utils.folding import fold_layer_norm, has_own

__all__ = ["LocalSubsampledAttention"]


@ATTENTIONS.register("local_subsampled")
class LocalSubsampledAttention(QkvAttention):
    """Local and global sub-sampled attention by turns of blocks: (B, N, C) -> (B, N, C).

    Blocks 0, 2, ... of a stage: softmax(Q K^T / sqrt(d)) V among the patches of each window of w x
    w patches. Blocks 1, 3, ...: keys and values from LayerNorm(convolution of R x R patches,
    stride R), as in :class:`~pacavit.attention.SpatialReductionAttention`. A stage with one block
    has no global attention. The cost is O(w^2 N + N^2 / R^2). Chu et al., "Twins: Revisiting the
    Design of Spatial Attention in Vision Transformers" (Twins-SVT), NeurIPS 2021,
    https://arxiv.org/abs/2104.13840.

    Where a side of the map is no multiple of w, the last windows are smaller.

    Args:
        dim: channels C.
        num_heads: heads h.
        stage: index of the stage.
        block: index of the block in the stage.
        window_size: w, in patches.
        sr_ratio: R, in patches; None is the paper's 8, 4, 2, 1 by stage. 1 is full attention.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        stage: int,
        block: int,
        window_size: int = 7,
        sr_ratio: int | None = None,
    ) -> None:
        super().__init__(dim, num_heads, stage=stage, block=block)
        self.window_size = check_count("window_size", window_size)
        ratio = reduction_ratio(sr_ratio, stage)
        self.reduction = SpatialReduction(dim, ratio) if block % 2 else None

    def fold(self, *, half: bool) -> None:
        """Fold the norm of the reduced map into keys and values; nothing else reads it."""
        super().fold(half=half)
        if has_own(self, "input_layers") and self.reduction is not None:
            fold_layer_norm(self.reduction.norm, [self.k, self.v])

    def input_layers(self) -> Sequence[nn.Linear]:
        """The projections, unless the map is reduced: its convolution sees zeros around it."""
        return (
            (self.q, self.k, self.v)
            if self.reduction is None or self.reduction.conv is None
            else ()
        )

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        """(B, N, C) -> (B, N, C); the state is unchanged."""
        if self.reduction is not None:
            context, valid = self.reduction(x, grid, patch_mask)
            return self.attend(x, context, valid), state
        windows = WindowPartition(grid, self.window_size, x.device)
        q, k, v = self.q(x), self.k(x), self.v(x)
        return self.proj(windows.attend(q, k, v, self.num_heads, patch_mask)), state

    def recorded(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState, AttentionRecord]:
        """Keys are the patches of the window, or stand for R x R patches each."""
        if self.reduction is not None:
            context, valid = self.reduction(x, grid, patch_mask)
            tokens, weights = self.attend_recorded(x, context, valid)
            keys = self.reduction.keys(x, grid, patch_mask)
            return tokens, state, AttentionRecord(weights, keys)
        windows = WindowPartition(grid, self.window_size, x.device)
        q, k, v = self.q(x), self.k(x), self.v(x)
        tokens, weights = windows.attend_recorded(q, k, v, self.num_heads, patch_mask)
        return self.proj(tokens), state, AttentionRecord(weights, windows.keys())
