"""Batched agglomerative clustering; each image is clustered on its own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pacavit.clustering.functional._points import (
    check_choice,
    check_count,
    check_number,
    check_points,
    exact,
    squared_distances,
)
from pacavit.errors import RecipeError
from pacavit.utils.exporting import repeat_while, stable_argsort

__all__ = [
    "LINKAGES",
    "AgglomerativeResult",
    "agglomerative",
    "cluster",
    "merge_compiled",
    "merge_tensors",
]

LINKAGES = ("ward", "average", "complete")
_EXPORTED_POINTS = 1 << 16
"""Points that an exported program can cut a tree of; networks cluster far fewer."""


class AgglomerativeResult(NamedTuple):
    """The result of :func:`agglomerative`.

    Attributes:
        labels: (B, N) int64, the cluster of each point, numbered by their first points; -1 at
            padding.
        n_clusters: (B,) int64, clusters found.
    """

    labels: Tensor
    n_clusters: Tensor


@exact
def agglomerative(
    x: Tensor,
    n_clusters: int | None = 2,
    *,
    linkage: str = "ward",
    distance_threshold: float | None = None,
    mask: Tensor | None = None,
) -> AgglomerativeResult:
    """Agglomerative clustering of each image of a batch on its own, by Euclidean distances.

    The same partitions as ``sklearn.cluster.AgglomerativeClustering``, which like this computes in
    float64 whatever x is; but in images with fewer than M points each point is a cluster. No
    gradients. On a CPU compiled nearest-neighbor chains work on several images at a time; on a GPU
    all mutual nearest neighbors of all images merge at once, which gives the same tree for these
    linkages.

    Args:
        x: (B, N, C) points; half precision is computed in fp32.
        n_clusters: M; None if a threshold is given.
        linkage: "ward", "average" or "complete".
        distance_threshold: clusters this far apart, or farther, are not merged.
        mask: (B, N) bool, False where a point is padding.

    Returns:
        labels, n_clusters.

    Raises:
        RecipeError: an option out of range, or features that are NaN or infinite.
        ValueError: shapes that do not fit.

    Examples:
        >>> import torch
        >>> x = torch.tensor([[[0.0], [10.0], [1.0], [11.0]]])
        >>> agglomerative(x, 2).labels
        tensor([[0, 1, 0, 1]])
    """
    check_choice("linkage", linkage, LINKAGES)
    if (n_clusters is None) == (distance_threshold is None):
        raise RecipeError("give one of n_clusters and distance_threshold, the other must be None")
    if n_clusters is not None:
        check_count("n_clusters", n_clusters)
    if distance_threshold is not None:
        check_number("distance_threshold", distance_threshold, least=0)
    x, mask = check_points(x, mask)
    return AgglomerativeResult(*cluster(x, mask, linkage, n_clusters, distance_threshold))


def cluster(
    x: Tensor, mask: Tensor, linkage: str, n_clusters: int | None, distance_threshold: float | None
) -> tuple[Tensor, Tensor]:
    """Labels (B, N) and numbers of clusters (B,); the input is not checked.

    Opaque to compilers and tracers, and tensor operations for exporters.

    Args:
        x: (B, N, C), at least fp32, 0 at padding.
        mask: (B, N) bool, False at padding.
        linkage: "ward", "average" or "complete".
        n_clusters: M, or None.
        distance_threshold: used where ``n_clusters`` is None.
    """
    clustering = _cluster_tensors if torch.compiler.is_exporting() else _cluster
    return clustering(x, mask, linkage, n_clusters, distance_threshold)


@torch.library.custom_op("pacavit::agglomerate", mutates_args=())
def _cluster(
    x: Tensor, mask: Tensor, linkage: str, n_clusters: int | None, distance_threshold: float | None
) -> tuple[Tensor, Tensor]:
    return _cut_at(merge(x, mask, linkage), mask, linkage, n_clusters, distance_threshold)


def _cluster_tensors(
    x: Tensor, mask: Tensor, linkage: str, n_clusters: int | None, distance_threshold: float | None
) -> tuple[Tensor, Tensor]:
    tree = merge_tensors(x, mask, linkage)
    return _cut_at(tree, mask, linkage, n_clusters, distance_threshold)


def _cut_at(
    tree: tuple[Tensor, Tensor],
    mask: Tensor,
    linkage: str,
    n_clusters: int | None,
    distance_threshold: float | None,
) -> tuple[Tensor, Tensor]:
    """Cut a tree as :func:`merge` returns it; the arguments are those of :func:`cluster`."""
    target, height = tree
    if n_clusters is None:
        assert distance_threshold is not None
        limit = distance_threshold**2 if linkage == "ward" else distance_threshold
        return cut(target, height < limit, mask)
    # The last merges are cut; what has no merge is infinitely high, but padding must not be.
    order = stable_argsort(height.masked_fill(~mask, -1), descending=True)
    return cut(target, order.argsort(1) >= n_clusters, mask)


@_cluster.register_fake
def _(
    x: Tensor,  # noqa: ARG001
    mask: Tensor,
    linkage: str,  # noqa: ARG001
    n_clusters: int | None,  # noqa: ARG001
    distance_threshold: float | None,  # noqa: ARG001
) -> tuple[Tensor, Tensor]:
    labels = mask.new_empty(mask.shape, dtype=torch.int64)
    return labels, labels.new_empty(mask.shape[:1])


def cut(target: Tensor, kept: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Follow the kept merges to the first point of every cluster, and number those.

    Args:
        target: (B, N), the lower point into whose cluster a point's cluster merged.
        kept: (B, N) bool, the merges that happen.
        mask: (B, N) bool, False at padding.

    Returns:
        Labels (B, N) and the number of clusters (B,).
    """
    own = torch.arange(target.shape[1], device=target.device).expand_as(target)
    root = torch.where(kept, target, own)
    points = _EXPORTED_POINTS if torch.compiler.is_exporting() else target.shape[1]
    for _ in range(max(1, (points - 1).bit_length())):
        root = root.gather(1, root)
    first = (root == own) & mask
    number = first.cumsum(1) - 1
    return number.gather(1, root).masked_fill(~mask, -1), first.sum(1)


def merge(x: Tensor, mask: Tensor, linkage: str) -> tuple[Tensor, Tensor]:
    """The whole tree of merges of every image.

    Args:
        x: (B, N, C), 0 at padding.
        mask: (B, N) bool, False at padding.
        linkage: "ward", "average" or "complete".

    Returns:
        For every point that is not the first of its image, the first point (B, N) of the cluster
        into which the cluster that it is first of merges, and the height (B, N) of that merge,
        squared for "ward", in float64 (see ``wide``); the others have themselves and infinity.
    """
    return (merge_compiled if x.device.type == "cpu" else merge_tensors)(x, mask, linkage)


def merge_tensors(x: Tensor, mask: Tensor, linkage: str) -> tuple[Tensor, Tensor]:
    """The same as :func:`merge`, by tensor operations: in each round all mutual nearest merge."""
    distances = squared_distances(x, x)
    if linkage != "ward":
        distances = distances.sqrt()
    # Mutual neighbors need both directions to be equal, and numbers.
    distances = torch.minimum(distances, distances.transpose(1, 2)).nan_to_num(nan=torch.inf)
    own = torch.arange(distances.shape[1], device=distances.device).expand_as(mask)
    target, height = own.clone(), distances.new_full(mask.shape, torch.inf)
    size = mask.to(distances)
    apart = own[:, :, None] != own[:, None]
    apart = apart & mask[:, None] & mask[..., None]
    distances = distances.where(apart, torch.inf)

    def merge_mutual(
        distances: Tensor, target: Tensor, height: Tensor, size: Tensor, rounds: Tensor, _: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        low, nearest = distances.min(2)
        mutual = (nearest.gather(1, nearest) == own) & low.isfinite()
        partner = torch.where(mutual, nearest, own)
        gone = mutual & (nearest < own)
        target, height = target.where(~gone, nearest), height.where(~gone, low)
        other = size.gather(1, partner) * mutual
        apart = low.where(mutual, 0)
        rows = distances.gather(1, partner[..., None].expand_as(distances))
        distances = _join(distances, rows, apart, size, other, size, mutual, linkage)
        size = size + other
        columns = distances.gather(2, partner[:, None].expand_as(distances))
        distances = _join(
            distances.transpose(1, 2),
            columns.transpose(1, 2),
            apart,
            size - other,
            other,
            size,
            mutual,
            linkage,
        ).transpose(1, 2)
        size = size.masked_fill(gone, 0)
        left = own[:, :, None] != own[:, None]
        left = left & ~gone[:, None] & ~gone[..., None]
        distances = distances.where(left, torch.inf)
        # Rounding is one-sided.
        distances = torch.minimum(distances, distances.transpose(1, 2))
        # Each round merges a pair at least; engines of exported programs must end with NaN too.
        rounds = rounds - 1
        return distances, target, height, size, rounds, mutual.any() & (rounds > 0)

    rounds = torch.scalar_tensor(mask.shape[1], dtype=torch.int64, device=mask.device)
    start = distances, target, height, size, rounds, mask.any()
    found = repeat_while(lambda *state: state[-1].clone(), merge_mutual, start)
    return found[1], found[2]


def _join(
    own: Tensor,
    other: Tensor,
    apart: Tensor,
    own_size: Tensor,
    other_size: Tensor,
    size: Tensor,
    mutual: Tensor,
    linkage: str,
) -> Tensor:
    """Lance-Williams: distances of merged rows (B, N, 1) to columns (B, 1, N), or ``own``."""
    first, second, third = own_size[..., None], other_size[..., None], size[:, None]
    if linkage == "complete":
        joined = own.maximum(other)
    elif linkage == "average":
        joined = (first * own + second * other) / (first + second)
    else:
        joined = (first + third) * own + (second + third) * other - third * apart[..., None]
        joined = joined / (first + second + third)
    return joined.where(mutual[..., None], own)


def merge_compiled(x: Tensor, mask: Tensor, linkage: str) -> tuple[Tensor, Tensor]:
    """The same as :func:`merge`, by a compiled loop over images on the CPU."""
    from pacavit.clustering.functional import kernels

    target = torch.empty(mask.shape, dtype=torch.int64)
    height = torch.empty(mask.shape, dtype=torch.float64)
    arrays = (x.contiguous().numpy(), mask.numpy(), LINKAGES.index(linkage))
    kernels.nearest_neighbor_chains(*arrays, target.numpy(), height.numpy())
    return target, height
