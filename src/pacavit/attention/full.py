"""Plain self-attention from every patch to every patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from pacavit.attention.base import ATTENTIONS
from pacavit.attention.qkv import QkvAttention
from pacavit.types import Grid, StageState

__all__ = ["FullAttention"]


@ATTENTIONS.register("full")
class FullAttention(QkvAttention):
    """Multi-head self-attention, quadratic in N: (B, N, C) -> (B, N, C)."""

    only_mixes: ClassVar[bool] = True

    def input_layers(self) -> Sequence[nn.Linear]:
        """The projections."""
        return (self.q, self.k, self.v)

    def forward(
        self,
        x: Tensor,
        grid: Grid,
        state: StageState,
        patch_mask: Tensor | None = None,
    ) -> tuple[Tensor, StageState]:
        """(B, N, C) -> (B, N, C); the state is unchanged."""
        return self.attend(x, x, patch_mask), state
