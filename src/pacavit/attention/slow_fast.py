"""Full attention among important tokens, one representative for the others (Evo-ViT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.attention.base import ATTENTIONS
from pacavit.attention.heads import merge_heads, split_heads
from pacavit.attention.options import check_count
from pacavit.attention.qkv import QkvAttention
from pacavit.clustering.functional._points import check_number, take
from pacavit.errors import RecipeError
from pacavit.types import AttentionRecord, Grid, StageState
from pacavit.utils.exporting import stable_argsort
from pacavit.utils.precision import at_least_fp32

__all__ = ["SlowFastAttention"]

_UNIT = 10**6
"""The fraction that is kept is counted in millionths, so that it is exact in whole numbers."""


class _Split(NamedTuple):
    """The tokens of the slow path: K patches and the representative of the others.

    Attributes:
        kept: (B, N) bool, the patches of the slow path.
        positions: (B, K) int64, where they are; filled up with others where an image has fewer.
        row: (B, N) int64, the token 0..K of the slow path that each patch is given.
        share: (B, N), the fraction of each patch in the representative; sums to 1, or is 0.
        tokens: (B, K + 1, C).
        valid: (B, K + 1) bool.
    """

    kept: Tensor
    positions: Tensor
    row: Tensor
    share: Tensor
    tokens: Tensor
    valid: Tensor


@ATTENTIONS.register("slow_fast")
class SlowFastAttention(QkvAttention):
    """Full attention among a fraction k of the patches, O((kN)^2): (B, N, C) -> (B, N, C).

    Xu et al., "Evo-ViT: Slow-Fast Token Evolution for Dynamic Vision Transformer", AAAI 2022,
    arXiv:2108.01390. The slow path is softmax(Q K^T / sqrt d) V among the k N patches of highest
    importance a and one representative r = sum a_i x_i / sum a_i of the others, which all receive
    what r receives. The importance is a <- (1 - alpha) a + alpha sum over heads of the class
    token's attention, for patches of the slow path; others keep theirs. It is passed on in
    ``StageState.importance``, without gradient; the selection in ``StageState.kept``.

    A pyramid has no class token: the query of the mean of all patches replaces it. Importance
    starts anew in each stage, whose first ``full_blocks`` blocks attend to all patches. The
    feed-forward layers belong to the block here, and process all patches.

    Args:
        dim: channels C.
        num_heads: heads h; must divide C.
        stage: index of the stage.
        block: index of the block in the stage.
        keep: k, above 0 to 1.
        alpha: weight of a block's own attention in the importance, 0 to 1.
        full_blocks: number of blocks at the start of a stage with full attention. The original has
            four of twelve; stages of a pyramid are shorter.
        group_size: number of consecutive blocks that share a selection.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        stage: int,
        block: int,
        keep: float = 0.5,
        alpha: float = 0.5,
        full_blocks: int = 1,
        group_size: int = 4,
    ) -> None:
        super().__init__(dim, num_heads, stage=stage, block=block)
        check_number("keep", keep, least=0, above=True)
        check_number("alpha", alpha, least=0)
        for name, value in (("keep", keep), ("alpha", alpha)):
            if value > 1:
                raise RecipeError(f"{name} must be at most 1, not {value!r}")
        check_count("full_blocks", full_blocks)
        check_count("group_size", group_size)
        self.keep = keep
        self.alpha = alpha
        self.full_blocks = full_blocks
        self.group_size = group_size

    def input_layers(self) -> Sequence[nn.Linear]:
        """The projections, of patches and of means of patches."""
        return (self.q, self.k, self.v)

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        """(B, N, C) -> (B, N, C) and the state with importance and selection."""
        split = self._split(x, state, patch_mask)
        tokens, valid = (x, patch_mask) if split is None else (split.tokens, split.valid)
        q, k, v = (split_heads(layer(tokens), self.num_heads) for layer in (self.q, self.k, self.v))
        mask = None if valid is None else valid[:, None, None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        mixed = self.proj(merge_heads(mixed))
        if split is not None:
            mixed = take(mixed, split.row)
        return mixed, self._next_state(x, k, split, state, patch_mask)

    def recorded(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState, AttentionRecord]:
        """:meth:`forward` with the weights of the slow path, in a row for every patch."""
        split = self._split(x, state, patch_mask)
        tokens, valid = (x, patch_mask) if split is None else (split.tokens, split.valid)
        q, k, v = (split_heads(layer(tokens), self.num_heads) for layer in (self.q, self.k, self.v))
        weights, keys = self._softmax(q, k, valid), None
        if split is not None:
            row = split.row[:, None, :, None].expand(-1, weights.shape[1], -1, weights.shape[3])
            weights = weights.gather(2, row)
            own = F.one_hot(split.positions, x.shape[1]) * split.valid[:, :-1, None]
            keys = torch.cat([own.to(split.share), split.share[:, None]], 1)
        mixed = self.proj(merge_heads(weights @ v))
        new_state = self._next_state(x, k, split, state, patch_mask)
        return mixed, new_state, AttentionRecord(weights, keys)

    def _split(self, x: Tensor, state: StageState, patch_mask: Tensor | None) -> _Split | None:
        """The slow path; None for all patches."""
        importance, kept = state.importance, state.kept
        later = self.block - self.full_blocks
        if later < 0 or importance is None:
            return None
        valid = x.new_ones(x.shape[:2], dtype=torch.bool) if patch_mask is None else patch_mask
        per_unit = round(self.keep * _UNIT)
        if kept is None or later % self.group_size == 0:
            ranked = importance.masked_fill(~valid, -torch.inf)
            rank = stable_argsort(ranked, descending=True).argsort(dim=1)
            number = (valid.sum(1, keepdim=True) * per_unit + _UNIT - 1) // _UNIT
            kept = rank < number.clamp(min=1)
        slots = (x.shape[1] * per_unit + _UNIT - 1) // _UNIT
        index = stable_argsort((~kept).to(torch.uint8))[:, :slots]
        filled = kept.gather(1, index)
        slot = torch.arange(index.shape[1], device=x.device)
        row = torch.full_like(kept, index.shape[1], dtype=torch.int64)
        row = row.scatter(1, index, slot.where(filled, index.shape[1]))
        fast = valid & ~kept
        # Importance that vanishes in all of them counts as equal.
        share = importance * fast
        share = share.where(share.sum(1, keepdim=True) > 0, fast.to(share))
        share = share / share.sum(1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
        representative = torch.bmm(share[:, None].to(x.dtype), x)
        tokens = torch.cat([take(x, index), representative], 1)
        used = torch.cat([filled, fast.any(1, keepdim=True)], 1)
        return _Split(kept, index, row, share, tokens, used)

    def _softmax(self, q: Tensor, k: Tensor, valid: Tensor | None) -> Tensor:
        """softmax(q k^T / sqrt d) over valid keys: (B, h, n, d), (B, h, K, d) -> (B, h, n, K)."""
        scores = q @ k.transpose(2, 3) * k.shape[3] ** -0.5
        if valid is not None:
            scores = scores.masked_fill(~valid[:, None, None], -torch.inf)
        return scores.softmax(3)

    @torch.no_grad()
    def _next_state(
        self,
        x: Tensor,
        k: Tensor,
        split: _Split | None,
        state: StageState,
        patch_mask: Tensor | None,
    ) -> StageState:
        """The state with the importance after this block, and the selection that it used."""
        mean = x.mean(1, keepdim=True)
        if patch_mask is not None:
            x = x * patch_mask[..., None]
            mean = x.sum(1, keepdim=True) / patch_mask.sum(1)[:, None, None]
        query = split_heads(self.q(mean), self.num_heads)
        valid = patch_mask if split is None else split.valid
        seen = at_least_fp32(self._softmax(query, k, valid)).sum(1)[:, 0]
        before = state.importance
        if split is None:
            if before is not None:
                seen = torch.lerp(before.to(seen), seen, self.alpha)
            return state._replace(importance=seen, kept=None)
        assert before is not None
        old = before.to(seen).gather(1, split.positions)
        new = torch.lerp(old, seen[:, :-1], self.alpha).where(split.valid[:, :-1], old)
        return state._replace(
            importance=before.to(seen).scatter(1, split.positions, new), kept=split.kept
        )
