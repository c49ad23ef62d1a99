"""Attention through a few pooled queries (agent attention)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.attention.base import ATTENTIONS
from pacavit.attention.heads import merge_heads, split_heads
from pacavit.attention.options import check_count
from pacavit.attention.qkv import QkvAttention
from pacavit.clustering import GridClustering
from pacavit.types import AttentionRecord, Grid, StageState
from pacavit.utils.layout import map_of, tokens_of

__all__ = ["AgentAttention"]


@ATTENTIONS.register("agent")
class AgentAttention(QkvAttention):
    """Pooled queries read the patches, patches read them, O(N n): (B, N, C) -> (B, N, C).

    Han et al., "Agent Attention: On the Integration of Softmax and Linear Attention", ECCV 2024,
    arXiv:2312.08874. The n agents A are means of the queries in the cells of a grid:
    softmax(Q A^T / sqrt d) softmax(A K^T / sqrt d) V + DWC(V), DWC a depthwise 3x3 convolution.
    The biases of the original for positions are left out: they are tied to one size of the grid,
    and the feed-forward layers here learn position. Cells are not learned, so this is the control
    for clusters that are. With padding, cells are those of the canvas. With n >= N every patch is
    its own agent.

    Args:
        dim: channels C.
        num_heads: heads h; must divide C.
        stage: index of the stage.
        block: index of the block in the stage.
        num_agents: n.
    """

    def __init__(
        self, dim: int, num_heads: int, *, stage: int, block: int, num_agents: int = 49
    ) -> None:
        super().__init__(dim, num_heads, stage=stage, block=block)
        check_count("num_agents", num_agents)
        self.pool = GridClustering(dim, num_agents)
        self.depthwise = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def input_layers(self) -> Sequence[nn.Linear]:
        """The projections; cells do not depend on the tokens."""
        return (self.q, self.k, self.v)

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        """(B, N, C) -> (B, N, C); the state is unchanged."""
        q, k, v, agents, valid = self._project(x, grid, patch_mask)
        mask = None if patch_mask is None else patch_mask[:, None, None]
        read = F.scaled_dot_product_attention(agents, k, v, attn_mask=mask)
        mixed = F.scaled_dot_product_attention(q, agents, read, attn_mask=valid)
        return self._finish(mixed, v, grid, patch_mask), state

    def recorded(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState, AttentionRecord]:
        """:meth:`forward` by the product of both softmaxes, (B, h, N, N)."""
        q, k, v, agents, valid = self._project(x, grid, patch_mask)
        scale = q.shape[3] ** -0.5
        reading = agents @ k.transpose(2, 3) * scale
        if patch_mask is not None:
            reading = reading.masked_fill(~patch_mask[:, None, None], -torch.inf)
        asking = (q @ agents.transpose(2, 3) * scale).masked_fill(~valid, -torch.inf)
        weights = asking.softmax(3) @ reading.softmax(3)
        tokens = self._finish(weights @ v, v, grid, patch_mask)
        return tokens, state, AttentionRecord(weights)

    def _project(
        self, x: Tensor, grid: Grid, patch_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys, values, agents (B, h, n, d), and which agents count (B, 1, 1, n)."""
        q, k, v = (layer(x) for layer in (self.q, self.k, self.v))
        weights, _, valid = self.pool(x, grid, patch_mask)
        assert valid is not None
        agents = torch.bmm(weights.to(q.dtype), q)
        q, k, v, agents = (split_heads(each, self.num_heads) for each in (q, k, v, agents))
        return q, k, v, agents, valid[:, None, None]

    def _finish(self, mixed: Tensor, v: Tensor, grid: Grid, patch_mask: Tensor | None) -> Tensor:
        """Mixed values and values (B, h, N, d) -> (B, N, C)."""
        values = merge_heads(v)
        if patch_mask is not None:
            values = values * patch_mask[..., None]
        local, _ = tokens_of(self.depthwise(map_of(values, grid)))
        return self.proj(merge_heads(mixed) + local)
