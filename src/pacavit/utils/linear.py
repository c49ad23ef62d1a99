"""A linear layer that uses a wide CPU fully.

A linear layer is a 1 x 1 convolution. PyTorch multiplies fp32 matrices with MKL, copies the bias
into the result first, and computes convolutions with oneDNN, which adds the bias as it goes. MKL
does not use AVX-512 on AMD processors. Which of the two is faster depends on the CPU:

- AMD with AVX-512: convolutions, 2.2 times faster on a Zen 5. On a Zen 4, whose AVX-512 units are
  half as wide, between as fast and 30 % faster, with one thread.
- Intel with AVX-512: convolutions with two or more threads, 0 to 20 % faster on a Xeon with AMX.
  With one thread PyTorch computes small batches of them with MKL too, so that nothing is gained.
- bf16 on CPUs with instructions for it: convolutions; the products take the same time, and the
  copy of the bias is saved.
- Others, where nothing was measured: plain layers.

This is decided by the CPU and not by a measurement at the start: the two round differently, and a
run that is resumed has to repeat its bits. The environment variable ``PACAVIT_LINEAR`` sets the way
for a process: ``plain``, ``convolution`` (on any CPU with oneDNN), or ``auto``, the default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.errors import UnknownNameError

__all__ = ["ENVIRONMENT", "WAYS", "Linear", "has_bf16", "linear", "linear_way"]

ENVIRONMENT = "PACAVIT_LINEAR"
WAYS = ("auto", "plain", "convolution")
_SMALL = 1 << 20
"""Multiplications below which a convolution costs more than it gains."""
_IMAGES = 16
"""With one thread, PyTorch gives fp32 convolutions of 1 x 1 to oneDNN from this batch size on."""


def _facts() -> Mapping[str, Any]:
    """What PyTorch knows of the CPU; older versions do not tell."""
    facts: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return facts


@cache
def has_bf16() -> bool:
    """Whether the CPU has instructions for products of bf16 (AVX-512, AMX, or those of ARM)."""
    return any(_facts().get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@cache
def _is_amd() -> bool:
    return str(_facts().get("cpu_name", "")).startswith("AMD")


@cache
def linear_way() -> str:
    """How large linear layers are computed on the CPU: "plain" or "convolution".

    Raises:
        UnknownNameError: the environment variable names no way.
    """
    way = os.environ.get(ENVIRONMENT) or "auto"
    if way not in WAYS:
        raise UnknownNameError(f"way of {ENVIRONMENT}", way, WAYS)
    if way == "auto":
        wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
        way = "convolution" if wide else "plain"
    return way if torch.backends.mkldnn.is_available() else "plain"


class Linear(nn.Linear):
    """``nn.Linear``, on AMD processors with AVX-512 twice as fast in fp32: (..., C) -> (..., D).

    Large products on a CPU are computed as the 1 x 1 convolution that they are, equal up to
    rounding, where that is faster; see this module. In other precisions, in autocast with weights
    of another precision, and in ``torch.compile`` and ``torch.export``, which choose their own
    kernels, this is ``nn.Linear``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., D)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What :class:`Linear` computes, (..., C) -> (..., D), with weights (D, C) and (D,)."""
    images = 0
    if not torch.compiler.is_compiling() and x.device.type == "cpu":
        images = _images(x, weight)
    if images == 0:
        return F.linear(x, weight, bias)
    width, features = weight.shape
    column = x.reshape(images, -1, 1, features).permute(0, 3, 1, 2)
    products = F.conv2d(column, weight[..., None, None], bias)
    return products.permute(0, 2, 3, 1).reshape(*x.shape[:-1], width)


def _images(x: Tensor, weight: Tensor) -> int:
    """The number of images as which a convolution gets the rows; 0 for a plain layer."""
    width, features = weight.shape
    dtype, rows = x.dtype, x.numel() // features
    if (
        dtype is not weight.dtype
        or x.shape[-1] != features
        or x.numel() * width <= _SMALL
        or (torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is not dtype)
        or linear_way() == "plain"
    ):
        return 0
    if dtype is torch.bfloat16:
        return 1 if has_bf16() else 0
    if dtype is not torch.float32:
        return 0
    if torch.get_num_threads() > 1:
        return 1
    return 0 if rows % _IMAGES or not _is_amd() else _IMAGES
