"""Multiply-accumulates, by the count of the PaCa-ViT paper."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["count_macs"]


def count_macs(model: nn.Module, image_size: tuple[int, int], in_chans: int = 3) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image.

    Aggregation of clusters and both products of attention are among them: this is what the paper
    and many others publish as FLOPs.

    Args:
        model: the network, on any device, "meta" included.
        image_size: (height, width) in pixels.
        in_chans: channels of the image.
    """
    device = next(model.parameters()).device
    modes = {module: module.training for module in model.modules()}
    model.eval()
    # The counter does not know every fused attention kernel; the plain one is matrix products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, in_chans, *image_size, device=device))
    for module, training in modes.items():
        module.training = training
    return int(counter.get_total_flops()) // 2
