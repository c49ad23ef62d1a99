"""Patch-to-cluster attention, the subject of this package."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from pacavit.attention.base import ATTENTIONS
from pacavit.attention.qkv import QkvAttention
from pacavit.types import Grid, StageState
from pacavit.utils.folding import fold_layer_norm, has_own

__all__ = ["PacaAttention"]


@ATTENTIONS.register("paca")
class PacaAttention(QkvAttention):
    """Every patch attends to M clusters, linear in N: (B, N, C) -> (B, N, C).

    Clusters are the assignment's weighted means of the block's own tokens, normalized; queries
    come from patches, keys and values from clusters. Grainger et al., "PaCa-ViT", CVPR 2023.

    Args:
        dim: channels C.
        num_heads: heads h.
        stage: index of the stage.
        block: index of the block in the stage.
    """

    uses_clusters = True
    only_mixes: ClassVar[bool] = True

    def __init__(self, dim: int, num_heads: int, *, stage: int, block: int) -> None:
        super().__init__(dim, num_heads, stage=stage, block=block)
        self.cluster_norm = nn.LayerNorm(dim, eps=1e-6)

    def fold(self, *, half: bool) -> None:
        """Fold the norm of the clusters into keys and values too; nothing else reads it."""
        super().fold(half=half)
        if has_own(self, "only_mixes"):
            fold_layer_norm(self.cluster_norm, [self.k, self.v])

    def forward(
        self,
        x: Tensor,
        grid: Grid,
        state: StageState,
        patch_mask: Tensor | None = None,
    ) -> tuple[Tensor, StageState]:
        """(B, N, C) -> (B, N, C); the state is unchanged."""
        assignment = state.assignment
        if assignment is None:
            raise ValueError(f"stage {self.stage}, block {self.block}: no assignment to attend to")
        clusters = torch.bmm(assignment.weights.to(x.dtype), x)
        return self.attend(x, self.cluster_norm(clusters), assignment.valid), state
