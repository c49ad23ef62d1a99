"""Plain self-attention from every patch to every patch."""

from __future__ import annotations

from torch import Tensor

from pacavit.attention.base import ATTENTIONS
from pacavit.attention.qkv import QkvAttention
from pacavit.types import Grid, StageState

__all__ = ["FullAttention"]


@ATTENTIONS.register("full")
class FullAttention(QkvAttention):
    """Multi-head self-attention, quadratic in N: (B, N, C) -> (B, N, C)."""

    def forward(
        self,
        x: Tensor,
        grid: Grid,
        state: StageState,
        patch_mask: Tensor | None = None,
    ) -> tuple[Tensor, StageState]:
        """(B, N, C) -> (B, N, C); the state is unchanged."""
        return self.attend(x, x, patch_mask), state
