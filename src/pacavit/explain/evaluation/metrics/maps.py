"""Properties of maps: sparseness, correlation, and localization on an object."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["energy_inside", "gini", "pointing_game", "rank_correlation"]


def pointing_game(maps: Tensor, objects: Tensor) -> Tensor:
    """Whether the highest pixel lies on the object: (B, H, W) and (B, H, W) bool -> (B,) in 0..1.

    Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016, without a margin.
    If several pixels are highest, the fraction of them on the object. NaN for an image without an
    object.
    """
    values = maps.flatten(1).nan_to_num(nan=-torch.inf)
    inside = objects.flatten(1)
    top = values == values.amax(1, keepdim=True)
    fraction = (top & inside).sum(1) / top.sum(1)
    return fraction.masked_fill(~inside.any(1), torch.nan)


def energy_inside(maps: Tensor, objects: Tensor) -> Tensor:
    """Fraction of the sum of a map's positive values on the object: (B,) in 0..1.

    Wang et al., "Score-CAM", CVPR-W 2020. NaN for an image without an object; 0 for a map without
    positive values.
    """
    values = maps.flatten(1).nan_to_num(nan=0).clamp(min=0)
    inside = objects.flatten(1)
    total = values.sum(1)
    fraction = (values * inside).sum(1) / total.where(total > 0, 1)
    return fraction.masked_fill(~inside.any(1), torch.nan)


def gini(maps: Tensor) -> Tensor:
    """Gini index of a map's magnitudes, 0 (all equal) to nearly 1 (one pixel): (B, H, W) -> (B,).

    Chalasani et al., "Concise explanations of neural networks using adversarial training", ICML
    2020. 0 for a map of zeros.
    """
    values = maps.flatten(1).nan_to_num(nan=0).abs().double().sort(1).values
    number = values.shape[1]
    weights = torch.arange(1, number + 1, device=maps.device) * 2 - number - 1
    total = values.sum(1)
    return (values * weights).sum(1) / (number * total.where(total > 0, 1))


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation of two maps, per image: (B, H, W), (B, H, W) -> (B,).

    Equal values share their mean rank; NaN where a map is constant.
    """
    one, other = (_mean_ranks(maps.flatten(1)) for maps in (first, second))
    one, other = one - one.mean(1, keepdim=True), other - other.mean(1, keepdim=True)
    norm = (one.square().sum(1) * other.square().sum(1)).sqrt()
    return (one * other).sum(1) / norm


def _mean_ranks(values: Tensor) -> Tensor:
    found = []
    for row in values.nan_to_num(nan=-torch.inf).double():
        _, group, count = row.unique(return_inverse=True, return_counts=True)
        last = count.cumsum(0)
        found.append((last - (count - 1) / 2)[group])
    return torch.stack(found)
