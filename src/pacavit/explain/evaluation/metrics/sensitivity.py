"""Sensitivity of maps to small changes of the image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["max_sensitivity"]


def max_sensitivity(
    explain: Callable[[Tensor], Tensor],
    images: Tensor,
    maps: Tensor,
    *,
    radius: float = 0.02,
    samples: int = 4,
    seed: int = 0,
) -> Tensor:
    """Largest relative change of a map over noisy copies of the image: (B,), 0 is no change.

    Max-sensitivity of Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS
    2019. NaN where the map is 0 everywhere.

    Args:
        explain: images (B, 3, H, W) to maps (B, H, W).
        images: (B, 3, H, W), normalized.
        maps: (B, H, W), those of the images.
        radius: noise is uniform in -radius..radius.
        samples: number of noisy copies.
        seed: of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    norm = maps.flatten(1).norm(dim=1)
    changes = []
    for _ in range(samples):
        noise = (torch.rand(images.shape, generator=generator) * 2 - 1) * radius
        other = explain(images + noise.to(images))
        changes.append((other - maps).flatten(1).norm(dim=1))
    largest = torch.stack(changes).amax(0)
    return torch.where(norm > 0, largest / norm, torch.nan)
