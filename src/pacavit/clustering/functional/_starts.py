"""Initial centers of iterative methods, chosen among the points of each image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pacavit.clustering.functional._points import being_traced, center, take

__all__ = ["STARTS", "initial_centers"]

STARTS = ("farthest", "k-means++", "random")


def initial_centers(
    x: Tensor, n_clusters: int, init: str, mask: Tensor, random_state: int
) -> Tensor:
    """Choose M points of each image as its first centers: (B, N, C) -> (B, M, C).

    Random draws depend on ``random_state`` alone, so the centers of an image do not depend on its
    batch. In an image with fewer than M points, points are chosen more than once.

    Args:
        x: (B, N, C), 0 at padding.
        n_clusters: M.
        init: "farthest": first the point farthest from the mean, then repeatedly the point
            farthest from the chosen ones; "k-means++": points drawn with probabilities
            proportional to the squared distance from the chosen ones; "random": distinct points.
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
    weights = center(x, mask)[0].square().sum(2) if draws is None else mask.to(x)
    nearest = torch.full_like(weights, torch.inf)
    centers = x.new_empty(x.shape[0], n_clusters, x.shape[2])
    for number in range(n_clusters):
        if draws is None:
            chosen = weights.masked_fill(~mask, -1).argmax(1, keepdim=True)
        else:
            mass = weights.masked_fill(~mask, 0).cumsum(1)
            chosen = (mass <= mass[:, -1:] * draws.random()).sum(1, keepdim=True)
            last = (mass < mass[:, -1:]).sum(1, keepdim=True)  # not beyond the end by rounding
            first = mask.int().argmax(1, keepdim=True)  # all points are chosen: one of them again
            chosen = torch.where(mass[:, -1:] > 0, chosen.minimum(last), first)
        centers[:, number] = take(x, chosen)[:, 0]
        nearest = nearest.minimum(_squared_distances(x, take(x, chosen)))
        weights = nearest
    return centers


def _squared_distances(x: Tensor, point: Tensor) -> Tensor:
    """(B, N, C) and (B, 1, C) -> (B, N), by differences, which are exact for small distances."""
    if being_traced():  # not every exporter knows cdist
        return (x - point).square().sum(2)
    return torch.cdist(x, point, compute_mode="donot_use_mm_for_euclid_dist").square()[..., 0]
