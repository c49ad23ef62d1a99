"""What all batched clusterings share: checks of their input, distances, starting points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from pacavit.errors import RecipeError

__all__ = [
    "at_least_fp32",
    "centre",
    "check_choice",
    "check_count",
    "check_given",
    "check_number",
    "check_points",
    "check_seed",
    "exact",
    "full_mask",
    "precise",
    "prepare",
    "squared_distances",
    "take",
]

P = ParamSpec("P")
R = TypeVar("R")


def exact(function: Callable[P, R]) -> Callable[P, R]:
    """Without gradients, and in fp32 or more also where autocast would take less."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        given = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]
        with torch.no_grad(), precise(given[0].device.type if given else "cpu"):
            return function(*args, **kwargs)

    return wrapped


@contextmanager
def precise(device: str) -> Iterator[None]:
    """Neither autocast nor TF32: near neighbours differ in digits that those drop.

    Args:
        device: its type, such as "cuda".
    """
    with torch.autocast(device, enabled=False):
        if device != "cuda":
            yield
            return
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


def check_count(name: str, value: int) -> None:
    """Refuse an option that is no whole number of at least 1 that 64 bits can hold.

    Raises:
        RecipeError: names the option.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**63:
        raise RecipeError(f"{name} must be a whole number from 1 to 2**63 - 1, not {value!r}")


def check_number(name: str, value: float, *, least: float, above: bool = False) -> None:
    """Refuse an option that is no number of at least (or above) ``least``.

    Raises:
        RecipeError: names the option.
    """
    # NaN is not right either.
    if not isinstance(value, float | int) or not (value > least if above else value >= least):
        bound = "above" if above else "at least"
        raise RecipeError(f"{name} must be {bound} {least:g}, not {value!r}")


def check_seed(name: str, value: int) -> None:
    """Refuse an option that is no seed of every generator.

    Raises:
        RecipeError: names the option.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
        raise RecipeError(f"{name} must be a whole number from 0 to 2**32 - 1, not {value!r}")


def check_given(name: str, value: Tensor, shape: tuple[int, ...], x: Tensor) -> Tensor:
    """A starting value on the device and in the precision of ``x``.

    Raises:
        RecipeError: of another shape, or not finite.
    """
    if value.shape != shape:
        raise RecipeError(f"{name} must be {shape}, not {tuple(value.shape)}")
    if not value.isfinite().all():
        raise RecipeError(f"{name} holds NaN or infinite values")
    return value.to(x)


def check_choice(name: str, value: object, known: Sequence[str]) -> None:
    """Refuse an option that is none of the known names.

    Raises:
        RecipeError: names the option, and the names.
    """
    if value not in known:
        raise RecipeError(f"{name} must be one of {', '.join(known)}, not {value!r}")


def at_least_fp32(x: Tensor) -> Tensor:
    """Half precision as fp32; anything else as it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def full_mask(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mask (B, N) of points (B, N, C), all of them where there is none."""
    return x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask


def prepare(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Tokens (B, N, C), 0 at padding, in at least fp32 around their mean; and their mask (B, N)."""
    x, mask = at_least_fp32(x), full_mask(x, mask)
    return centre(x, mask)[0], mask


def check_points(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Points in at least fp32, padding replaced by zeros, and the mask (B, N), bool.

    Raises:
        ValueError: ``x`` is not (B, N, C) with N and C above 0, ``mask`` is not (B, N), or an
            image has no point.
        RecipeError: a point is NaN or infinite.
    """
    if x.ndim != 3 or not x.is_floating_point() or 0 in x.shape[1:]:
        raise ValueError(f"points must be floats (B, N, C), not {x.dtype} {tuple(x.shape)}")
    if mask is not None:
        if mask.shape != x.shape[:2] or mask.dtype != torch.bool:
            shape = tuple(mask.shape)
            raise ValueError(f"mask must be bool {tuple(x.shape[:2])}, not {mask.dtype} {shape}")
        if not mask.any(1).all():
            raise ValueError("mask leaves an image without points")
        x = x.masked_fill(~mask[..., None], 0)
    x, mask = at_least_fp32(x), full_mask(x, mask)
    # A sum is a tenth of the time; only if it is no number every single one is looked at.
    if not x.sum().isfinite() and not x.isfinite().all():
        raise RecipeError("x holds NaN or infinite features; nothing can be clustered")
    return x, mask


def centre(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N, C), 0 at padding -> the same around the mean of the points; that mean (B, 1, C)."""
    mean = (x.sum(1) / mask.sum(1)[:, None])[:, None]
    return (x - mean).masked_fill(~mask[..., None], 0), mean


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(B, N, C) and (B, M, C) -> (B, N, M), by the expanded square, never negative.

    Both should be centred: digits are lost where norms are large beside distances.
    """
    products = torch.baddbmm(y.square().sum(2)[:, None], x, y.transpose(1, 2), alpha=-2)
    return products.add_(x.square().sum(2)[..., None]).clamp_(min=0)


def take(values: Tensor, index: Tensor) -> Tensor:
    """(B, N, C) and (B, K) -> (B, K, C): one row of an image an index."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))
