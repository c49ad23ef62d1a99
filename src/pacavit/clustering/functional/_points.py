"""Helpers of all batched clusterings: input checks, precision, distances."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from pacavit.errors import RecipeError
from pacavit.utils.exporting import repeat_while
from pacavit.utils.precision import at_least_fp32, without_autocast

__all__ = [
    "being_traced",
    "center",
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
    "relative_distances",
    "squared_distances",
    "take",
    "wide",
]

P = ParamSpec("P")
R = TypeVar("R")


def exact(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to run without gradients and in at least fp32, even under autocast."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        given = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]
        with torch.no_grad(), precise(given[0].device.type if given else "cpu"):
            return function(*args, **kwargs)

    return wrapped


@contextmanager
def precise(device: str) -> Iterator[None]:
    """Switch autocast and TF32 off: their rounding would change which neighbor is nearest.

    Args:
        device: its type, such as "cuda".
    """
    with without_autocast(device):
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
    """Refuse an option unless it is a whole number from 1 to 2**63 - 1.

    Raises:
        RecipeError: names the option.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**63:
        raise RecipeError(f"{name} must be a whole number from 1 to 2**63 - 1, not {value!r}")


def check_number(name: str, value: float, *, least: float, above: bool = False) -> None:
    """Refuse an option unless it is a number of at least, or above, ``least``.

    Raises:
        RecipeError: names the option.
    """
    # Written so that NaN is refused too.
    if not isinstance(value, float | int) or not (value > least if above else value >= least):
        bound = "above" if above else "at least"
        raise RecipeError(f"{name} must be {bound} {least:g}, not {value!r}")


def check_seed(name: str, value: int) -> None:
    """Refuse an option unless every random generator accepts it as its seed.

    Raises:
        RecipeError: names the option.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
        raise RecipeError(f"{name} must be a whole number from 0 to 2**32 - 1, not {value!r}")


def check_given(name: str, value: Tensor, shape: tuple[int, ...], x: Tensor) -> Tensor:
    """A user's initial value on the device of ``x``, in float64 (see :func:`wide`).

    Raises:
        RecipeError: it has another shape, or is not finite.
    """
    if value.shape != shape:
        raise RecipeError(f"{name} must be {shape}, not {tuple(value.shape)}")
    if not value.isfinite().all():
        raise RecipeError(f"{name} holds NaN or infinite values")
    return value.to(wide(x.new_empty(0)))


def check_choice(name: str, value: object, known: Sequence[str]) -> None:
    """Refuse an option unless it is one of the known names.

    Raises:
        RecipeError: names the option and the known names.
    """
    if value not in known:
        raise RecipeError(f"{name} must be one of {', '.join(known)}, not {value!r}")


def wide(x: Tensor) -> Tensor:
    """The tensor in float64; on devices without float64, in at least fp32."""
    return at_least_fp32(x) if x.device.type == "mps" else x.double()


def being_traced() -> bool:
    """Whether a compiler or tracer records tensor operations; it cannot record compiled loops."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]


def full_mask(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mask (B, N) of points (B, N, C); None stands for all points."""
    return x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask


def prepare(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Tokens (B, N, C) in at least fp32, 0 at padding; and their mask (B, N)."""
    x = at_least_fp32(x)
    if mask is not None:
        x = x.masked_fill(~mask[..., None], 0)
    return x, full_mask(x, mask)


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
    # Checking the sum first takes a tenth of the time of checking every value.
    if not x.sum().isfinite() and not x.isfinite().all():
        raise RecipeError("x holds NaN or infinite features; nothing can be clustered")
    return x, mask


def center(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N, C), 0 at padding -> the points minus their mean, and that mean (B, 1, C)."""
    mean = (x.sum(1) / mask.sum(1)[:, None])[:, None]
    return (x - mean).masked_fill(~mask[..., None], 0), mean


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(B, N, C) and (B, M, C) -> (B, N, M) in float64 (see :func:`wide`), by differences.

    The expansion ``|x|^2 + |y|^2 - 2 x y`` is inexact for distances that are small compared with
    the norms; ``torch.cdist`` takes roots, whose rounding changes which distances are equal.
    """
    x, y = wide(x), wide(y)
    found = x.new_zeros(*x.shape[:2], y.shape[1])
    if torch.compiler.is_exporting():  # a loop in the program, instead of operations per channel
        channels = x.shape[2]

        def add(channel: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
            step = x.index_select(2, channel) - y.index_select(2, channel).transpose(1, 2)
            return channel + 1, found + step * step

        start = torch.zeros(1, dtype=torch.int64, device=x.device), found
        return repeat_while(lambda channel, _: channel[0] < channels, add, start)[1]
    for own, other in zip(x.unbind(2), y.unbind(2), strict=True):
        step = own[:, :, None] - other[:, None]
        found += step * step
    return found


def relative_distances(x: Tensor, centers: Tensor) -> Tensor:
    """(B, N, C) and (B, M, C), both from :func:`wide` -> (B, N, M).

    Squared distances minus the squared norms of x, by a matrix product. That suffices to compare
    the distances of one point to several centers.
    """
    square = centers.square().sum(2)[:, None]
    return torch.baddbmm(square, x, centers.transpose(1, 2), alpha=-2)


def take(values: Tensor, index: Tensor) -> Tensor:
    """(B, N, C) and indices (B, K) -> those rows (B, K, C)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))
