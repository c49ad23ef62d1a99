"""What all batched clusterings share: checks of their input, distances, starting points."""

from __future__ import annotations

import torch
from torch import Tensor

from pacavit.errors import RecipeError

__all__ = ["check_number", "check_points", "squared_distances", "take"]


def check_number(name: str, value: float, *, least: float, above: bool = False) -> None:
    """Refuse an option that is no number of at least (or above) ``least``.

    Raises:
        RecipeError: names the option.
    """
    right = value > least if above else value >= least
    if not right:  # NaN is not right either
        bound = "above" if above else "at least"
        raise RecipeError(f"{name} must be {bound} {least:g}, not {value!r}")


def check_points(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Points in at least fp32, padding replaced by zeros, and the mask (B, N), bool.

    Raises:
        ValueError: ``x`` is not (B, N, C) with N and C above 0, ``mask`` is not (B, N), or an
            image has no point.
        RecipeError: a point is NaN or infinite.
    """
    if x.ndim != 3 or not x.is_floating_point() or 0 in x.shape[1:]:
        raise ValueError(f"points must be floats (B, N, C), not {x.dtype} {tuple(x.shape)}")
    if x.dtype in (torch.bfloat16, torch.float16):
        x = x.float()
    if mask is None:
        mask = x.new_ones(x.shape[:2], dtype=torch.bool)
    elif mask.shape != x.shape[:2] or mask.dtype != torch.bool:
        raise ValueError(
            f"mask must be bool {tuple(x.shape[:2])}, not {mask.dtype} {tuple(mask.shape)}"
        )
    elif not mask.any(1).all():
        raise ValueError("mask leaves an image without points")
    else:
        x = x.masked_fill(~mask[..., None], 0)
    if not x.isfinite().all():
        raise RecipeError("x holds NaN or infinite features; nothing can be clustered")
    return x, mask


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(B, N, C) and (B, M, C) -> (B, N, M), by the expanded square, never negative.

    Both should be centred: digits are lost where norms are large beside distances.
    """
    products = torch.baddbmm(y.square().sum(2)[:, None], x, y.transpose(1, 2), alpha=-2)
    return products.add_(x.square().sum(2)[..., None]).clamp_(min=0)


def take(values: Tensor, index: Tensor) -> Tensor:
    """(B, N, C) and (B, K) -> (B, K, C): one row of an image an index."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))
