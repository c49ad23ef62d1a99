"""Channels of heads."""

from __future__ import annotations

from torch import Tensor

from pacavit.errors import RecipeError

__all__ = ["check_heads", "merge_heads", "split_heads"]


def check_heads(dim: int, num_heads: int, stage: int) -> None:
    """Raise RecipeError unless the heads divide the channels of a stage."""
    if num_heads < 1 or dim % num_heads:
        raise RecipeError(
            f"num_heads {num_heads} does not divide the {dim} channels of stage {stage}"
        )


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, N, C) -> (B, h, N, d)."""
    return x.unflatten(2, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, h, N, d) -> (B, N, C)."""
    return x.transpose(1, 2).flatten(2)
