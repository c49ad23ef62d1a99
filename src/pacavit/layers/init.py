"""Initialization of layers, as in the paper."""

from __future__ import annotations

import math

from timm.layers import trunc_normal_
from torch import nn

from pacavit.clustering import Clustering

__all__ = ["init_weights"]


def init_weights(module: nn.Module) -> None:
    """Truncated normal for linear layers, fan-out normal for convolutions, 1 and 0 for norms.

    For ``nn.Module.apply``, which visits children first, so that a clustering can then change the
    initialization of its own layers.
    """
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        height, width = module.kernel_size
        fan_out = height * width * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, Clustering):
        module.init_weights()
