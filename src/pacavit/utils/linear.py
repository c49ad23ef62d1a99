"""A linear layer that uses a wide CPU fully."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Linear"]

# PyTorch multiplies fp32 matrices with MKL, which does not use AVX-512 on AMD processors, and
# computes convolutions with oneDNN, which does: 2.2 times faster on a Zen 5. On Intel processors
# the two should be equally fast; this was not measured.
_WIDE_CPU = (
    torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
)
_SMALL = 1 << 20
"""Multiplications below which a convolution costs more than it gains."""


class Linear(nn.Linear):
    """``nn.Linear``, on AMD processors with AVX-512 twice as fast in fp32: (..., C) -> (..., D).

    Large products are computed on CPUs with AVX-512 as the 1 x 1 convolution that they are, equal
    up to rounding. Elsewhere, in other precisions, and in ``torch.compile`` and ``torch.export``,
    which choose their own kernels, this is ``nn.Linear``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., D)."""
        if (
            not _WIDE_CPU
            or torch.compiler.is_compiling()
            or x.dtype is not torch.float32
            or x.dtype is not self.weight.dtype
            or x.device.type != "cpu"
            or x.shape[-1] != self.in_features
            or torch.is_autocast_enabled("cpu")
            or x.numel() * self.out_features <= _SMALL
        ):
            return super().forward(x)
        column = x.reshape(1, -1, 1, self.in_features).permute(0, 3, 1, 2)
        products = F.conv2d(column, self.weight[..., None, None], self.bias)
        return products.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.out_features)
