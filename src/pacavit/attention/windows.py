"""Attention inside of shifted windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from pacavit.attention.base import ATTENTIONS
from pacavit.attention.options import check_count
from pacavit.attention.partition import WindowPartition
from pacavit.attention.qkv import QkvAttention
from pacavit.types import AttentionRecord, Grid, StageState

__all__ = ["WindowAttention"]


@ATTENTIONS.register("windows")
class WindowAttention(QkvAttention):
    """Attention inside of windows, shifted in every second block: (B, N, C) -> (B, N, C).

    softmax(Q K^T / sqrt(d) + bias) V among the patches of each window of w x w patches, where the
    bias of each head is learned for each relative position in a window. Blocks 1, 3, ... of a
    stage move the windows by w // 2 patches, so that neighboring windows exchange information. An
    axis of the map with at most w patches is not shifted. The cost is O(w^2 N). Liu et al., "Swin
    Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021,
    https://arxiv.org/abs/2103.14030.

    Windows start in the upper left corner. Where a side of the map is no multiple of w, the last
    windows are smaller: patches attend to patches only, not to zeros around the map. With padding,
    the map is the canvas: an image whose side is at most w is shifted if the canvas is larger.

    Args:
        dim: channels C.
        num_heads: heads h.
        stage: index of the stage.
        block: index of the block in the stage.
        window_size: w, in patches.
        shift_size: patches by which windows are moved in odd blocks, below w; None is w // 2.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        stage: int,
        block: int,
        window_size: int = 7,
        shift_size: int | None = None,
    ) -> None:
        super().__init__(dim, num_heads, stage=stage, block=block)
        self.window_size = check_count("window_size", window_size)
        if shift_size is None:
            shift_size = window_size // 2
        check_count("shift_size", shift_size, 0, window_size - 1)
        self.shift_size = shift_size if block % 2 else 0
        table = torch.empty((2 * window_size - 1) ** 2, num_heads)
        self.relative_position_bias = nn.Parameter(trunc_normal_(table, std=0.02))

    def input_layers(self) -> Sequence[nn.Linear]:
        """The projections."""
        return (self.q, self.k, self.v)

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        """(B, N, C) -> (B, N, C); the state is unchanged."""
        windows = WindowPartition(grid, self.window_size, x.device, shift=self.shift_size)
        q, k, v = self.q(x), self.k(x), self.v(x)
        bias = self._bias(windows)
        return self.proj(windows.attend(q, k, v, self.num_heads, patch_mask, bias)), state

    def recorded(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState, AttentionRecord]:
        """The keys of a patch are the patches of its window."""
        windows = WindowPartition(grid, self.window_size, x.device, shift=self.shift_size)
        q, k, v = self.q(x), self.k(x), self.v(x)
        bias = self._bias(windows)
        tokens, weights = windows.attend_recorded(q, k, v, self.num_heads, patch_mask, bias)
        return self.proj(tokens), state, AttentionRecord(weights, windows.keys())

    def _bias(self, windows: WindowPartition) -> Tensor:
        """(h, K, K)."""
        return self.relative_position_bias[windows.offsets(self.window_size)].permute(2, 0, 1)
