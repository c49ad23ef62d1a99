"""Multiply-accumulates, counted as in the PaCa-ViT paper."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pacavit.layers import evaluation_mode

__all__ = ["count_macs"]


def count_macs(model: nn.Module, image_size: tuple[int, int], in_chans: int = 3) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image.

    The aggregation of clusters and both products of attention are included. The paper and many
    others publish this number as FLOPs.

    Args:
        model: the network, on any device, "meta" included.
        image_size: (height, width) in pixels.
        in_chans: channels of the image.
    """
    device = next(model.parameters()).device
    # The counter does not know every fused attention kernel; the plain one uses matrix products.
    plain, counter = sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False)
    with evaluation_mode(model), torch.no_grad(), plain, counter:
        model(torch.zeros(1, in_chans, *image_size, device=device))
    return int(counter.get_total_flops()) // 2
