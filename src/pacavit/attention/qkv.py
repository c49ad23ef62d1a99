"""Attention with queries, keys and values, and a softmax over all keys."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.attention.base import Attention
from pacavit.attention.heads import check_heads, merge_heads, split_heads
from pacavit.utils.folding import Foldable, has_own
from pacavit.utils.linear import Linear

__all__ = ["QkvAttention"]


class QkvAttention(Attention, Foldable):
    """Multi-head attention of patches to a context: (B, N, C) -> (B, N, C).

    A subclass implements ``forward`` with :meth:`attend`, once, on all patches. Recordings read
    the inputs of the softmax at ``q``, ``k``, ``v`` and ``proj`` by hooks, so there is one path
    for training, inference and explanation. If the context is neither the patches nor the
    clusters, or ``attend`` sees parts of the image (windows, buckets), the subclass implements
    :meth:`~pacavit.attention.base.Attention.recorded` as well, with :meth:`attend_recorded`
    where all queries have the same keys.

    Args:
        dim: channels C.
        num_heads: heads h; must divide C.
        stage: index of the stage the attention sits in, from 0.
        block: index of its block in the stage, from 0.

    Attributes:
        scale: factor of the products of queries and keys: 1/sqrt(d), or 1 after :meth:`fold`.
        only_mixes: the queries are read by :meth:`mix` and :meth:`mix_recorded` only, so that their
            factor can be folded into ``q``. This counts for the class that sets it, not for
            subclasses, which may have another formula.
    """

    only_mixes: ClassVar[bool] = False

    def __init__(self, dim: int, num_heads: int, *, stage: int, block: int) -> None:
        super().__init__(dim, num_heads, stage=stage, block=block)
        check_heads(dim, num_heads, stage)
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.q = Linear(dim, dim)
        self.k = Linear(dim, dim)
        self.v = Linear(dim, dim)
        self.proj = Linear(dim, dim)

    @torch.no_grad()
    def fold(self, *, half: bool) -> None:
        """Fold the factor of the scores into the queries, where that is all that reads them."""
        if has_own(self, "only_mixes") and self.only_mixes:
            self.q.weight.mul_(self.scale)
            self.q.bias.mul_(self.scale)
            self.scale = 1.0

    def attend(self, x: Tensor, context: Tensor, valid: Tensor | None) -> Tensor:
        """Multi-head attention of tokens (B, N, C) to a context (B, K, C) -> (B, N, C).

        Args:
            x: (B, N, C), the queries.
            context: (B, K, C), keys and values.
            valid: (B, K) bool, False where the context must be ignored; None is all valid.
        """
        return self.mix(self.q(x), self.k(context), self.v(context), valid)

    def attend_recorded(
        self, x: Tensor, context: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """:meth:`attend`, and the weights (B, h, N, K) that it computes the tokens from."""
        return self.mix_recorded(self.q(x), self.k(context), self.v(context), valid)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """Softmax attention of projected tokens, and the last projection -> (B, N, C).

        Args:
            q: (B, N, C), queries of all heads.
            k: (B, K, C), keys of all heads.
            v: (B, K, C), values of all heads.
            valid: (B, K) bool, False where a key must be ignored; None is all valid.
        """
        q, k, v = (split_heads(each, self.num_heads) for each in (q, k, v))
        mask = None if valid is None else valid[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        return self.proj(merge_heads(out))

    def mix_recorded(
        self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """:meth:`mix`, and the weights (B, h, N, K) that it computes the tokens from."""
        q, k, v = (split_heads(each, self.num_heads) for each in (q, k, v))
        scores = q @ k.mT * self.scale
        if valid is not None:
            scores = scores.masked_fill(~valid[:, None, None], -torch.inf)
        weights = scores.softmax(3)
        return self.proj(merge_heads(weights @ v)), weights
