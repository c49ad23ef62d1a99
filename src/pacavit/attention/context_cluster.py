"""Aggregation to centers and dispatch from them, without attention (context clusters)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.attention.base import ATTENTIONS, Attention
from pacavit.attention.heads import check_heads, merge_heads, split_heads
from pacavit.attention.options import check_count
from pacavit.clustering import GridClustering
from pacavit.types import Grid, StageState
from pacavit.utils.linear import Linear
from pacavit.utils.precision import at_least_fp32, without_autocast

__all__ = ["ContextClusterAttention"]


@ATTENTIONS.register("context_cluster")
class ContextClusterAttention(Attention):
    """Patches give to, and take from, their most similar center, O(N m): (B, N, C) -> (B, N, C).

    Ma et al., "Image as Set of Points", ICLR 2023, arXiv:2303.01494 (CoC). Features f and values v
    are projections of the tokens; the m centers are means of both in the cells of a grid. With the
    similarity s = sigmoid(beta + alpha cos(f_center, f_patch)), alpha and beta learned, each patch
    belongs to its most similar center only. A center aggregates
    g = (v_center + sum s v) / (1 + sum s) over its patches, and dispatches s g to each of them. No
    softmax is taken, so there are no weights for explanations that need an attention.

    Centers are those of the whole image; the original shares them out among regions in its first
    stages. Centers are means of a fixed grid: the clusters of the stage are not used. With padding,
    cells are those of the canvas.

    Args:
        dim: channels C.
        num_heads: heads h; must divide C. Each has its own clusters.
        stage: index of the stage.
        block: index of the block in the stage.
        num_centers: m.
    """

    def __init__(
        self, dim: int, num_heads: int, *, stage: int, block: int, num_centers: int = 49
    ) -> None:
        super().__init__(dim, num_heads, stage=stage, block=block)
        check_heads(dim, num_heads, stage)
        check_count("num_centers", num_centers)
        self.num_heads = num_heads
        self.pool = GridClustering(dim, num_centers)
        self.f = Linear(dim, dim)
        self.v = Linear(dim, dim)
        self.proj = Linear(dim, dim)
        self.alpha = nn.Parameter(torch.ones(()))
        self.beta = nn.Parameter(torch.zeros(()))

    def input_layers(self) -> Sequence[nn.Linear]:
        """The projections; cells do not depend on the tokens."""
        return (self.f, self.v)

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        """(B, N, C) -> (B, N, C); the state is unchanged."""
        cells, _, valid = self.pool(x, grid, patch_mask)
        assert valid is not None
        features, values = (layer(x) for layer in (self.f, self.v))
        centers, center_values = (torch.bmm(cells.to(x.dtype), each) for each in (features, values))
        features, values, centers, center_values = (
            at_least_fp32(split_heads(each, self.num_heads))
            for each in (features, values, centers, center_values)
        )
        # In half precision many centers would be equally similar.
        with without_autocast(x.device.type):
            cosine = F.normalize(centers, dim=3) @ F.normalize(features, dim=3).transpose(2, 3)
            similarity = torch.sigmoid(self.beta + self.alpha * cosine)
            nearest = similarity.masked_fill(~valid[:, None, :, None], -1).argmax(2, keepdim=True)
            number = torch.arange(similarity.shape[2], device=x.device)[:, None]
            belongs = nearest == number
            if patch_mask is not None:
                belongs = belongs & patch_mask[:, None, None]
            similarity = similarity * belongs
            total = similarity.sum(3, keepdim=True) + 1
            aggregated = (center_values + similarity @ values) / total
            dispatched = similarity.transpose(2, 3) @ aggregated
        return self.proj(merge_heads(dispatched).to(x.dtype)), state
