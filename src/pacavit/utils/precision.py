"""Precision of arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["at_least_fp32", "without_autocast"]


def at_least_fp32(x: Tensor) -> Tensor:
    """Half precision as fp32; anything else as it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


@contextmanager
def without_autocast(device: str) -> Iterator[None]:
    """Switch autocast off, also on devices that have none, such as "meta".

    Programs of ``torch.export`` are not for autocast and get no such switch, which archives of
    loops cannot hold.

    Args:
        device: its type, such as "cuda".
    """
    if device == "meta" or torch.compiler.is_exporting():
        yield
    else:
        with torch.autocast(device, enabled=False):
            yield
