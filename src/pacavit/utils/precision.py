"""Precision of arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["at_least_fp32"]


def at_least_fp32(x: Tensor) -> Tensor:
    """Half precision as fp32; anything else as it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
