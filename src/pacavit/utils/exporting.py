"""Programs for any batch and size: what is refused, and operations that exporters know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVarTuple, Unpack

import torch
from torch import Tensor, nn

from pacavit.errors import PacavitError

__all__ = ["check_export", "remainder", "repeat_while", "smaller", "stable_argsort"]

Ts = TypeVarTuple("Ts")


def check_export(network: nn.Module) -> None:
    """Refuse a network with a part that cannot be exported to ONNX or by ``torch.export``.

    A part says so by a method ``export_refusal()``, which returns the reason, or None. Clusterings
    and attentions have it; any other module may.

    Raises:
        PacavitError: names the part and its reason.
    """
    for name, module in network.named_modules():
        refusal = getattr(module, "export_refusal", None)
        reason = refusal() if callable(refusal) else None
        if reason is not None:
            place = f"{name}, a {type(module).__name__}" if name else type(module).__name__
            raise PacavitError(f"this network cannot be exported: {place}, {reason}")


def stable_argsort(x: Tensor, dim: int = -1, *, descending: bool = False) -> Tensor:
    """Indices that sort an axis, equal values in their order, also in exported programs.

    ONNX has no stable sort. There, equal values are found in a first sort, and a second one sorts
    by their common rank and index.
    """
    if not torch.compiler.is_exporting():
        return x.argsort(dim=dim, descending=descending, stable=True)
    x = x.movedim(dim, -1)
    values, index = (x if x.is_floating_point() else x.long()).sort(descending=descending)
    place = torch.arange(x.shape[-1], device=x.device)
    before = values.index_select(-1, (place - 1).clamp(min=0))
    rank = (values != before).long().cumsum(-1)
    key = torch.zeros_like(rank).scatter(-1, index, rank) * x.shape[-1] + place
    return key.sort().indices.movedim(-1, dim)


def remainder(x: Tensor, divisor: int) -> Tensor:
    """Integers ``x % divisor``; exporters to ONNX know symbolic divisors only as tensors."""
    if not torch.compiler.is_exporting():
        return x % divisor
    return x % torch.scalar_tensor(divisor, dtype=x.dtype, device=x.device)


def smaller(a: int, b: int) -> Any:
    """``min`` of sizes, which may be symbolic (exported programs) or tensors (traced ones)."""
    return torch.sym_min(a, b) if torch.compiler.is_exporting() else min(a, b)


def repeat_while(
    going: Callable[[Unpack[Ts]], Tensor],
    step: Callable[[Unpack[Ts]], tuple[*Ts]],
    state: tuple[*Ts],
) -> tuple[*Ts]:
    """Repeat ``state = step(*state)`` while ``going(*state)``; a loop in an exported program too.

    Args:
        going: from the state to one bool.
        step: from the state to the next, of equal shapes; changes nothing in place.
        state: tensors.
    """
    if torch.compiler.is_exporting():
        return torch.while_loop(going, step, state)
    while going(*state):
        state = step(*state)
    return state
