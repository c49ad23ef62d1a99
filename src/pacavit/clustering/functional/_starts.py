"""Where iterative methods begin: centres chosen among the points of each image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pacavit.clustering.functional._points import squared_distances, take

__all__ = ["STARTS", "initial_centers"]

STARTS = ("farthest", "k-means++", "random")


def initial_centers(
    x: Tensor, n_clusters: int, init: str, mask: Tensor, random_state: int
) -> Tensor:
    """Points to begin with, around 0 like x: (B, N, C) -> (B, M, C).

    All draws depend on ``random_state`` alone, so that an image has the centres in a batch that it
    has alone. Where fewer than M points are left, points repeat.

    Args:
        x: (B, N, C), around 0.
        n_clusters: M.
        init: "farthest": the point farthest from the mean, then always the
            point farthest from those chosen; "k-means++": points drawn with probabilities
            proportional to the squared distance from those chosen; "random": distinct points.
        mask: (B, N) bool, False at padding.
        random_state: seed of the last two.
    """
    draws = np.random.default_rng(random_state)
    if init == "random":
        order = torch.from_numpy(draws.random(x.shape[1])).to(x)
        order = order.expand(x.shape[:2]).masked_fill(~mask, 2)
        index = order.argsort(1)[:, torch.arange(n_clusters, device=x.device) % x.shape[1]]
        return take(x, index.where(mask.gather(1, index), index[:, :1]))
    return _spread(x, n_clusters, mask, None if init == "farthest" else draws)


def _spread(x: Tensor, n_clusters: int, mask: Tensor, draws: np.random.Generator | None) -> Tensor:
    weights = x.square().sum(2) if draws is None else mask.to(x)
    nearest = torch.full_like(weights, torch.inf)
    centers = x.new_empty(x.shape[0], n_clusters, x.shape[2])
    for number in range(n_clusters):
        if draws is None:
            chosen = weights.masked_fill(~mask, -1).argmax(1, keepdim=True)
        else:
            mass = weights.masked_fill(~mask, 0).cumsum(1)
            chosen = torch.searchsorted(mass, mass[:, -1:] * draws.random(), right=True)
            last = (mass < mass[:, -1:]).sum(1, keepdim=True)  # rounding must not pass the end
            first = mask.int().argmax(1, keepdim=True)  # all points are chosen: one of them again
            chosen = torch.where(mass[:, -1:] > 0, chosen.minimum(last), first)
        centers[:, number] = take(x, chosen)[:, 0]
        nearest = nearest.minimum(squared_distances(x, centers[:, number, None])[..., 0])
        weights = nearest
    return centers
