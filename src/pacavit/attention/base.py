"""What an attention is: tokens in, tokens out, and the state of the stage handed on."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.errors import RecipeError
from pacavit.types import Grid, StageState
from pacavit.utils.linear import Linear
from pacavit.utils.registry import Registry

__all__ = ["ATTENTIONS", "Attention"]


class Attention(nn.Module):
    """(B, N, C) -> (B, N, C). The second extension point.

    Every attention exposes ``q``, ``k``, ``v`` and ``proj``; recorders of attention maps hook
    these, so there is one path for training, inference and explanation.

    Args:
        dim: channels C.
        num_heads: heads h; must divide C.
        stage: index of the stage the attention sits in, from 0.
        block: index of its block in the stage, from 0.

    Attributes:
        uses_clusters: the attention reads ``state.assignment``.
    """

    uses_clusters: ClassVar[bool] = False

    def __init__(self, dim: int, num_heads: int, *, stage: int, block: int) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise RecipeError(
                f"num_heads {num_heads} does not divide the {dim} channels of stage {stage}"
            )
        self.num_heads = num_heads
        self.stage = stage
        self.block = block
        self.q = Linear(dim, dim)
        self.k = Linear(dim, dim)
        self.v = Linear(dim, dim)
        self.proj = Linear(dim, dim)

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        """(B, N, C) -> (B, N, C) and the state for the next block.

        Args:
            x: (B, N, C) normalised tokens.
            grid: their height and width.
            state: what earlier blocks of the stage handed on.
            patch_mask: (B, N) bool, False where a patch is padding; nothing attends to those.
        """
        raise NotImplementedError

    def attend(self, x: Tensor, context: Tensor, valid: Tensor | None) -> Tensor:
        """Multi-head attention of tokens (B, N, C) to a context (B, K, C) -> (B, N, C).

        Args:
            x: (B, N, C), the queries.
            context: (B, K, C), keys and values.
            valid: (B, K) bool, False where the context must be ignored; None is all valid.
        """
        q, k, v = (
            layer(tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for layer, tokens in ((self.q, x), (self.k, context), (self.v, context))
        )
        mask = None if valid is None else valid[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(out.transpose(1, 2).flatten(2))


ATTENTIONS: Registry[Attention] = Registry("attention")
