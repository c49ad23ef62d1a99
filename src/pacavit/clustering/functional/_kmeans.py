"""Batched k-means by Lloyd's algorithm; each image is clustered on its own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pacavit.clustering.functional._points import (
    being_traced,
    center,
    check_count,
    check_given,
    check_number,
    check_points,
    check_seed,
    exact,
    relative_distances,
    take,
    wide,
)
from pacavit.clustering.functional._starts import STARTS, initial_centers
from pacavit.errors import RecipeError

__all__ = ["KMeansResult", "kmeans", "lloyd", "lloyd_compiled", "lloyd_tensors"]


class KMeansResult(NamedTuple):
    """The result of :func:`kmeans`.

    Attributes:
        labels: (B, N) int64, the cluster of each point; -1 at padding.
        centers: (B, M, C), means of the clusters' points.
        inertia: (B,), sum of squared distances to the nearest center.
        n_iter: (B,) int64, iterations run.
    """

    labels: Tensor
    centers: Tensor
    inertia: Tensor
    n_iter: Tensor


@exact
def kmeans(
    x: Tensor,
    n_clusters: int,
    *,
    init: str | Tensor = "k-means++",
    max_iter: int = 300,
    tol: float | None = 1e-4,
    random_state: int = 0,
    mask: Tensor | None = None,
) -> KMeansResult:
    """k-means clustering of each image of a batch on its own.

    The same labels, centers, inertia and iterations as ``sklearn.cluster.KMeans`` with
    ``algorithm="lloyd"``, ``n_init=1`` and the same centers as ``init``, empty clusters included:
    they take the points farthest from their centers. In float32 too, centers and close decisions
    are computed in float64. No gradients.

    Args:
        x: (B, N, C) points; half precision is computed in fp32.
        n_clusters: M; with fewer distinct points than that some clusters stay empty.
        init: centers (B, M, C), or "k-means++", "random" or "farthest".
        max_iter: iterations at most.
        tol: an image is finished when its squared center shifts add up to no more than this, in
            variances of a feature; None: always run ``max_iter`` iterations, which on a GPU avoids
            waiting for results.
        random_state: seed of "k-means++" and "random".
        mask: (B, N) bool, False where a point is padding.

    Returns:
        labels, centers, inertia, n_iter.

    Raises:
        RecipeError: an option out of range, or features that are NaN or infinite.
        ValueError: shapes that do not fit.

    Examples:
        >>> import torch
        >>> x = torch.tensor([[[0.0], [1.0], [10.0], [11.0]]])
        >>> kmeans(x, 2, init="farthest").labels
        tensor([[0, 0, 1, 1]])
    """
    check_count("n_clusters", n_clusters)
    check_count("max_iter", max_iter)
    check_seed("random_state", random_state)
    if tol is not None:
        check_number("tol", tol, least=0)
    x, mask = check_points(x, mask)
    if isinstance(init, Tensor):
        centers = check_given("init", init, (x.shape[0], n_clusters, x.shape[2]), x)
    elif isinstance(init, str) and init in STARTS:
        centers = initial_centers(x, n_clusters, init, mask, random_state)
    else:
        raise RecipeError(f"init must be a tensor or one of {', '.join(STARTS)}, not {init!r}")
    labels, centers, inertia, n_iter = lloyd(x, centers, mask, max_iter, tol)
    return KMeansResult(labels.masked_fill(~mask, -1), centers.to(x), inertia.to(x), n_iter)


def lloyd(
    x: Tensor, centers: Tensor, mask: Tensor, max_iter: int, tol: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rounds of assigning and averaging; the input is not checked.

    Args:
        x: (B, N, C), at least fp32, 0 at padding.
        centers: (B, M, C) to begin with.
        mask: (B, N) bool, False at padding.
        max_iter: iterations at most.
        tol: the squared shift, in variances, at which an image is finished; None: never.

    Returns:
        Labels (B, N), centers (B, M, C) and inertia (B,), both in float64 (see ``wide``), and
        iterations (B,).
    """
    if x.device.type != "cpu" or being_traced():
        return lloyd_tensors(x, centers, mask, max_iter, tol)
    return lloyd_compiled(x, centers, mask, max_iter, tol)


def lloyd_compiled(
    x: Tensor, centers: Tensor, mask: Tensor, max_iter: int, tol: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same as :func:`lloyd`, by a compiled loop over images on the CPU."""
    from pacavit.clustering.functional import kernels

    centers = centers.to(torch.float64, memory_format=torch.contiguous_format, copy=True)
    labels = mask.new_empty(mask.shape, dtype=torch.int64)
    inertia = centers.new_empty(x.shape[:1])
    rounds = labels.new_empty(x.shape[:1])
    arrays = (x.contiguous().numpy(), centers.numpy(), mask.numpy())
    written = (labels.numpy(), inertia.numpy(), rounds.numpy())
    kernels.lloyd(*arrays, max_iter, -1.0 if tol is None else tol, *written)
    return labels, centers, inertia, rounds


def lloyd_tensors(
    x: Tensor, centers: Tensor, mask: Tensor, max_iter: int, tol: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same as :func:`lloyd`, by tensor operations."""
    x, mean = center(wide(x), mask)
    centers = centers.to(x) - mean
    if tol is None:
        for _ in range(max_iter):
            centers = _round(x, centers, mask)[1]
        rounds = mask.new_full(x.shape[:1], max_iter, dtype=torch.int64)
        labels = relative_distances(x, centers).argmin(2)
        return labels, centers + mean, _inertia(x, centers, mask, labels), rounds
    limit = tol * x.square().sum((1, 2)) / (mask.sum(1) * x.shape[2])
    labels = mask.new_full(mask.shape, -1, dtype=torch.int64)
    rounds, settled = labels.new_zeros(x.shape[0]), mask.new_zeros(x.shape[0])
    going = torch.arange(x.shape[0], device=x.device)  # the images that are not finished
    for number in range(1, max_iter + 1):
        new_labels, new_centers, stable = _round(x[going], centers[going], mask[going])
        settled[going] = (new_labels == labels[going]).all(1) & stable
        shift = (new_centers - centers[going]).square().sum((1, 2))
        labels[going], centers[going], rounds[going] = new_labels, new_centers, number
        going = going[~settled[going] & (shift > limit[going])]
        if not len(going):
            break
    labels = torch.where(settled[:, None], labels, relative_distances(x, centers).argmin(2))
    return labels, centers + mean, _inertia(x, centers, mask, labels), rounds


def _inertia(x: Tensor, centers: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    distances = (x - take(centers, labels)).square().sum(2)
    return distances.masked_fill(~mask, 0).sum(1)


def _round(x: Tensor, centers: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Labels by the nearest center, the means of equal labels, and whether no cluster was empty."""
    labels = relative_distances(x, centers).argmin(2)
    members = x.new_zeros(*labels.shape, centers.shape[1])
    members.scatter_(2, labels[..., None], mask[..., None].to(x))
    size, total = members.sum(1), members.transpose(1, 2) @ x
    empty = size == 0
    stable = mask.new_ones(mask.shape[0])
    if x.device.type != "cpu" or being_traced() or empty.any():  # a look costs less on a CPU alone
        size, total, moved = _refill(x, centers, mask, labels, size, total)
        stable = ~moved.any(1)
        largest = size.argmax(1, keepdim=True)
        source = torch.arange(centers.shape[1], device=x.device).where(size > 0, largest)
        size, total = size.gather(1, source), take(total, source)
    return labels, total / size[..., None], stable


def _refill(
    x: Tensor, centers: Tensor, mask: Tensor, labels: Tensor, size: Tensor, total: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Give every empty cluster one of the points farthest from their centers."""
    empty = size == 0
    distances = (x - take(centers, labels)).square().sum(2).masked_fill(~mask, -1)
    farthest = distances.topk(min(x.shape[1], centers.shape[1]), dim=1)
    rank = (empty.cumsum(1) - 1).clamp(0, farthest.indices.shape[1] - 1)
    point = farthest.indices.gather(1, rank)
    moved = empty & (farthest.values[:, :1] > 0) & (farthest.values.gather(1, rank) >= 0)
    moved &= empty.cumsum(1) <= farthest.indices.shape[1]
    gift = take(x, point) * moved[..., None]
    giver = labels.gather(1, point)
    total = total.scatter_add(1, giver[..., None].expand_as(gift), -gift)
    size = size.scatter_add(1, giver, -moved.to(size))
    return size.where(~moved, 1), total.where(~moved[..., None], gift), moved
