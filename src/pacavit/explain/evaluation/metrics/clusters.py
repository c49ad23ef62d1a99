"""Agreement of clusters with masks of objects.

All functions take labels (B, N) or (B, H, W) int64. In ``true``, 0 is the background and -1 means
no label; in ``found``, -1 means no cluster. All of these scores depend on the number of clusters M,
so report them together with M and with those of control partitions.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

__all__ = [
    "adjusted_rand_index",
    "contingency",
    "hungarian_miou",
    "mean_best_overlap",
    "normalized_mutual_information",
    "purity",
]


def contingency(true: Tensor, found: Tensor, *, foreground: bool = False) -> Tensor:
    """Number of pixels by object and cluster: (B, T, P), float64.

    Args:
        true: index of the object; negative pixels are ignored.
        found: index of the cluster; negative pixels are ignored.
        foreground: ignore the pixels of object 0, the background, too.
    """
    true, found = true.flatten(1), found.flatten(1)
    counted = (true >= int(foreground)) & (found >= 0)
    objects, clusters = int(true.max().clamp(min=0)) + 1, int(found.max().clamp(min=0)) + 1
    cell = (true * clusters + found).masked_fill(~counted, 0)
    table = torch.zeros(len(true), objects * clusters, dtype=torch.float64, device=true.device)
    table.scatter_add_(1, cell, counted.double())
    return table.view(-1, objects, clusters)


def adjusted_rand_index(true: Tensor, found: Tensor, *, foreground: bool = True) -> Tensor:
    """ARI, by default over foreground pixels only (FG-ARI): (B,), 1 is perfect, 0 is chance.

    Hubert and Arabie, 1985. NaN if all pixels are ignored; 1 if both partitions have one group, or
    both have only groups of one pixel.
    """
    table = contingency(true, found, foreground=foreground)
    total = table.sum((1, 2))

    def pairs(count: Tensor) -> Tensor:
        return (count * (count - 1) / 2).flatten(1).sum(1)

    both, rows, columns = pairs(table), pairs(table.sum(2)), pairs(table.sum(1))
    every = total * (total - 1) / 2
    expected = rows * columns / every.clamp(min=1)
    most = (rows + columns) / 2
    score = torch.where(most == expected, 1, (both - expected) / (most - expected))
    return score.masked_fill(total == 0, torch.nan)


def mean_best_overlap(true: Tensor, found: Tensor) -> Tensor:
    """The best IoU of any cluster with each object, averaged over objects: (B,).

    mBO of Seitzer et al., "Bridging the gap to real-world object-centric learning", ICLR 2023.
    The background is not an object; NaN for an image without objects.
    """
    overlap, present = _overlaps(true, found)
    best = overlap.amax(2) * present
    return best.sum(1) / present.sum(1)


def hungarian_miou(true: Tensor, found: Tensor) -> Tensor:
    """IoU of objects under the best one-to-one matching with clusters, averaged over objects: (B,).

    An unmatched object has IoU 0. The background is not an object; NaN without objects.
    """
    overlap, present = _overlaps(true, found)
    scores = []
    for values, real in zip(overlap.cpu(), present.cpu(), strict=True):
        values = values[real]
        rows, columns = linear_sum_assignment(values.numpy(), maximize=True)
        scores.append(values[rows, columns].sum() / len(values))
    return torch.stack(scores).to(true.device)


def normalized_mutual_information(true: Tensor, found: Tensor) -> Tensor:
    """Mutual information over the mean entropy: (B,), 0 to 1; 1 if both have a single group."""
    joint = contingency(true, found)
    joint = joint / joint.sum((1, 2), keepdim=True)
    rows, columns = joint.sum(2), joint.sum(1)
    entropies = torch.special.entr(rows).sum(1), torch.special.entr(columns).sum(1)
    mutual = entropies[0] + entropies[1] - torch.special.entr(joint).sum((1, 2))
    mean = (entropies[0] + entropies[1]) / 2
    return torch.where(mean == 0, 1, mutual.clamp(min=0) / mean)


def purity(true: Tensor, found: Tensor) -> Tensor:
    """Fraction of pixels that belong to the most frequent object of their cluster: (B,)."""
    table = contingency(true, found)
    return table.amax(1).sum(1) / table.sum((1, 2))


def _overlaps(true: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """IoU (B, T - 1, P) of objects and clusters, and which objects (B, T - 1) are present."""
    table = contingency(true, found)
    union = table.sum(2, keepdim=True) + table.sum(1, keepdim=True) - table
    overlap = table / union.clamp(min=1)
    return overlap[:, 1:], table.sum(2)[:, 1:] > 0
