"""Attention inside buckets of a locality-sensitive hash (Reformer)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.attention.base import ATTENTIONS, Attention
from pacavit.attention.heads import check_heads, merge_heads, split_heads
from pacavit.attention.options import check_count
from pacavit.clustering.functional._points import check_seed
from pacavit.errors import RecipeError
from pacavit.types import AttentionRecord, Grid, StageState
from pacavit.utils.exporting import stable_argsort
from pacavit.utils.linear import Linear
from pacavit.utils.precision import at_least_fp32, without_autocast

__all__ = ["LshAttention"]

# Finite, so that a row without any other key is not NaN: a token that sees nothing else sees
# itself, and only a row without any valid key, which nobody reads, sees padding.
_SELF = -1e5
_MASKED = -1e9


class _Tokens(NamedTuple):
    """Shared queries and keys, values, and the chunk of each token in each round.

    Attributes:
        qk: (B, h, P, d), P tokens with those added to fill the last chunk.
        values: (B, h, P, d).
        valid: (B, P) bool, False at padding and added tokens.
        order: (B, h, rounds, P) int64, the tokens sorted by bucket.
        chunk: (B, h, rounds, P) int64, the chunk of each token.
        shape: number of chunks, and tokens in each.
    """

    qk: Tensor
    values: Tensor
    valid: Tensor
    order: Tensor
    chunk: Tensor
    shape: tuple[int, int]


@ATTENTIONS.register("lsh")
class LshAttention(Attention):
    """Attention among tokens with equal hashes, O(r N 2c) and sorting: (B, N, C) -> (B, N, C).

    Kitaev et al., "Reformer: The Efficient Transformer", ICLR 2020, arXiv:2001.04451. Queries and
    keys are one projection, the keys scaled to unit length. In each of r rounds a token x has the
    bucket argmax [xR; -xR], R a fixed random matrix; tokens are sorted by bucket, then by
    position, and cut into chunks of c. A token attends to its own chunk and the one before, and to
    itself only if nothing else is there. Rounds are added with the weights softmax(logsumexp of
    their scores), and a key that a token sees in several rounds counts once. So the result is a
    softmax over the union of what a token sees in all rounds; with N <= c it is full attention.

    An image of n patches has 2 ceil(n / c) buckets, at most ``max_buckets``. The matrices are
    drawn once, from ``seed``, stage and block, and stored with the weights, so training and
    evaluation agree. The original is causal, draws anew in each pass, and its first chunk sees the
    last.

    Args:
        dim: channels C.
        num_heads: heads h; must divide C. Each has its own buckets.
        stage: index of the stage.
        block: index of the block in the stage.
        chunk_size: c, tokens in a chunk.
        num_rounds: r.
        max_buckets: largest number of buckets; even.
        seed: of the random matrices.
    """

    rotations: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        stage: int,
        block: int,
        chunk_size: int = 32,
        num_rounds: int = 2,
        max_buckets: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(dim, num_heads, stage=stage, block=block)
        check_heads(dim, num_heads, stage)
        check_count("chunk_size", chunk_size)
        check_count("num_rounds", num_rounds)
        check_count("max_buckets", max_buckets)
        if max_buckets % 2:
            raise RecipeError(f"max_buckets must be even, not {max_buckets}")
        check_seed("seed", seed)
        self.num_heads = num_heads
        self.chunk_size = chunk_size
        self.qk = Linear(dim, dim)
        self.v = Linear(dim, dim)
        self.proj = Linear(dim, dim)
        generator = torch.Generator().manual_seed(seed + 1000 * stage + block)
        shape = (num_rounds, num_heads, dim // num_heads, max_buckets // 2)
        # Drawn on the CPU, so that devices agree.
        rotations = torch.randn(shape, generator=generator, device="cpu")
        self.register_buffer("rotations", rotations.to(torch.get_default_device()))

    def input_layers(self) -> Sequence[nn.Linear]:
        """The projections."""
        return (self.qk, self.v)

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        """(B, N, C) -> (B, N, C); the state is unchanged."""
        tokens = self._sorted(x, patch_mask)
        with without_autocast(x.device.type):
            rounds = [_attend(tokens, each) for each in range(tokens.order.shape[2])]
            shares = torch.stack([total for _, total in rounds]).softmax(0)[..., None]
            mixed = (shares * torch.stack([out for out, _ in rounds])).sum(0)
        return self.proj(merge_heads(mixed[:, :, : x.shape[1]]).to(x.dtype)), state

    def recorded(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState, AttentionRecord]:
        """:meth:`forward` by the matrix of all pairs, quadratic in N."""
        tokens, num_patches = self._sorted(x, patch_mask), x.shape[1]
        chunk = tokens.chunk[..., :num_patches]
        step = chunk[..., :, None] - chunk[..., None, :]
        seen = ((step == 0) | (step == 1)).any(2) & tokens.valid[:, None, None, :num_patches]
        own = torch.eye(num_patches, dtype=torch.bool, device=x.device)
        qk = tokens.qk[:, :, :num_patches]
        with without_autocast(x.device.type):
            scores = _scores(qk, qk).masked_fill(own, _SELF).masked_fill(~seen, _MASKED)
        weights = scores.softmax(3)
        mixed = weights @ tokens.values[:, :, :num_patches]
        return self.proj(merge_heads(mixed).to(x.dtype)), state, AttentionRecord(weights)

    def _sorted(self, x: Tensor, patch_mask: Tensor | None) -> _Tokens:
        """Project the tokens and sort them by bucket, in every round."""
        batch, num_patches, _ = x.shape
        size, rotations = self.chunk_size, self.rotations
        if torch.compiler.is_exporting():
            # One program for every grid; its shapes must not depend on whether there is one chunk.
            chunks = (num_patches + size - 1) // size + 1
        else:
            if num_patches <= size:
                size, rotations = num_patches, rotations[:1]  # one chunk, equal in all rounds
            chunks = -(-num_patches // size)
        added = chunks * size - num_patches
        valid = (
            x.new_ones(batch, num_patches, dtype=torch.bool) if patch_mask is None else patch_mask
        )
        valid = F.pad(valid, (0, added))
        qk, values = (
            F.pad(at_least_fp32(split_heads(layer(x), self.num_heads)), (0, 0, 0, added))
            for layer in (self.qk, self.v)
        )
        with torch.no_grad(), without_autocast(x.device.type):
            bucket = self._buckets(qk, valid, rotations)
        order = stable_argsort(bucket)
        rank = order.argsort(dim=3)
        return _Tokens(qk, values, valid, order, rank // size, (chunks, size))

    def _buckets(self, qk: Tensor, valid: Tensor, rotations: Tensor) -> Tensor:
        """(B, h, P, d) -> (B, h, rounds, P); padding comes after the last bucket."""
        half = rotations.shape[3]
        projected = torch.einsum("bhpd,rhdk->bhrpk", qk, rotations.to(qk))
        pairs = (valid.sum(1) + self.chunk_size - 1) // self.chunk_size
        unused = torch.arange(half, device=qk.device) >= pairs.clamp(min=1)[:, None]
        unused = unused[:, None, None, None]
        sides = torch.cat(
            [side.masked_fill(unused, -torch.inf) for side in (projected, -projected)], 4
        )
        return sides.argmax(4).masked_fill(~valid[:, None, None], 2 * half)


def _attend(tokens: _Tokens, index: int) -> tuple[Tensor, Tensor]:
    """One round: mixed values (B, h, P, d) and logsumexp of the scores (B, h, P)."""
    order, shape = tokens.order[:, :, index], tokens.shape

    def sort(values: Tensor) -> Tensor:
        found = values.gather(2, order[..., None].expand(-1, -1, -1, values.shape[3]))
        return found.unflatten(2, shape)

    qk, values, chunk = map(sort, (tokens.qk, tokens.values, tokens.chunk.transpose(2, 3)))
    valid = sort(tokens.valid[:, None, :, None].expand(-1, order.shape[1], -1, -1))
    position = order.unflatten(2, shape)
    visible = _with_previous(valid, False)[..., 0]
    keys = _with_previous(position[..., None], -1)[..., 0]
    scores = _scores(qk, _with_previous(qk, 0.0))
    # Over how many rounds each pair is spread; invalid pairs may have any number.
    step = chunk[..., :, None, :] - _with_previous(chunk, -2)[..., None, :, :]
    times = ((step == 0) | (step == 1)).sum(-1).clamp(min=1)
    scores = scores.masked_fill(position[..., :, None] == keys[..., None, :], _SELF)
    scores = scores - times.to(scores).log()
    scores = scores.masked_fill(~visible[..., None, :], _MASKED)
    total = scores.logsumexp(4)
    mixed = (scores - total[..., None]).exp() @ _with_previous(values, 0.0)
    back = order.argsort(dim=2)
    mixed = mixed.flatten(2, 3)
    mixed = mixed.gather(2, back[..., None].expand(-1, -1, -1, mixed.shape[3]))
    return mixed, total.flatten(2).gather(2, back)


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    """Products with keys of unit length over sqrt d: (..., n, d), (..., k, d) -> (..., n, k)."""
    return queries @ F.normalize(keys, dim=-1).transpose(-1, -2) * queries.shape[-1] ** -0.5


def _with_previous(chunks: Tensor, first: float) -> Tensor:
    """Chunks (B, h, n, c, d) -> (B, h, n, 2c, d), the one before in front; ``first`` before all."""
    before = F.pad(chunks, (0, 0, 0, 0, 1, 0), value=first)[:, :, :-1]
    return torch.cat([before, chunks], 3)
