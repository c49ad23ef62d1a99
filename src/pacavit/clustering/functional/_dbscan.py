"""Batched DBSCAN; each image is clustered on its own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.clustering.functional._points import (
    check_count,
    check_number,
    check_points,
    exact,
    squared_distances,
    wide,
)
from pacavit.errors import RecipeError
from pacavit.utils.exporting import repeat_while

__all__ = ["DBSCANResult", "connect", "dbscan", "reach"]


class DBSCANResult(NamedTuple):
    """The result of :func:`dbscan`.

    Attributes:
        labels: (B, N) int64, clusters in the order of their first core points; -1 for noise and
            padding.
        n_clusters: (B,) int64, number of clusters found, 0 if all points are noise.
    """

    labels: Tensor
    n_clusters: Tensor


@exact
def dbscan(
    x: Tensor,
    eps: float | Tensor = 0.5,
    *,
    min_samples: int = 5,
    mask: Tensor | None = None,
) -> DBSCANResult:
    """DBSCAN of each image of a batch on its own, with Euclidean distances.

    Labels equal those of ``sklearn.cluster.DBSCAN``, also in float32: close decisions are made in
    float64. There are no gradients. On a CPU a compiled loop processes several images in parallel;
    on a GPU labels propagate in all images at once.

    Args:
        x: (B, N, C) points; half precision is computed in fp32.
        eps: radius of a neighborhood: one number, or (B,) with one per image.
        min_samples: a point with this many points within ``eps``, itself included, is a core.
        mask: (B, N) bool, False where a point is padding.

    Returns:
        labels, n_clusters.

    Raises:
        RecipeError: an option out of range, or features that are NaN or infinite.
        ValueError: shapes that do not fit.

    Examples:
        >>> import torch
        >>> x = torch.tensor([[[0.0], [10.0], [1.0], [50.0], [11.0]]])
        >>> dbscan(x, 2.0, min_samples=2).labels
        tensor([[ 0,  1,  0, -1,  1]])
    """
    check_count("min_samples", min_samples)
    if not isinstance(eps, Tensor):
        check_number("eps", eps, least=0, above=True)
    x, mask = check_points(x, mask)
    given = eps if isinstance(eps, Tensor) else torch.tensor(eps, dtype=torch.float64)
    radius = given.to(wide(x.new_empty(0)))
    if radius.ndim and radius.shape != x.shape[:1]:
        raise RecipeError(f"eps must be one number or {len(x)}, not {tuple(radius.shape)}")
    if not (radius > 0).all():
        raise RecipeError(f"eps must be above 0, not {radius.min().item():g}")
    labels = connect(x, radius.square().expand(len(x)), min_samples, mask)
    return DBSCANResult(labels, labels.amax(1) + 1)


def connect(x: Tensor, radius: Tensor, min_samples: int, mask: Tensor) -> Tensor:
    """Labels (B, N) of density-based clusters.

    Opaque to compilers and tracers, and tensor operations for exporters.

    Args:
        x: (B, N, C), 0 at padding.
        radius: (B,) float64, squared.
        min_samples: a point with this many points within the radius, itself included, is a core.
        mask: (B, N) bool, False at padding.
    """
    exporting = torch.compiler.is_exporting()
    return (connect_tensors if exporting else _connect)(x, radius, min_samples, mask)


@torch.library.custom_op("pacavit::connect", mutates_args=())
def _connect(x: Tensor, radius: Tensor, min_samples: int, mask: Tensor) -> Tensor:
    connecting = connect_compiled if x.device.type == "cpu" else connect_tensors
    return connecting(x, radius, min_samples, mask)


@_connect.register_fake
def _(x: Tensor, radius: Tensor, min_samples: int, mask: Tensor) -> Tensor:  # noqa: ARG001
    return mask.new_empty(mask.shape, dtype=torch.int64)


def connect_tensors(x: Tensor, radius: Tensor, min_samples: int, mask: Tensor) -> Tensor:
    """The same as :func:`connect`, by tensor operations: the lowest label spreads among cores."""
    distances = squared_distances(x, x)
    own = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    points = torch.scalar_tensor(mask.shape[1], dtype=torch.int64, device=mask.device)
    near = (distances <= radius[:, None, None]) & mask[:, None] & mask[..., None]
    core = near.sum(2) >= min_samples
    links = near & core[:, None]

    def spread(root: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        lowest = root[:, None].where(links, points).amin(2).where(core, points)
        lowest = lowest.gather(1, lowest.minimum(points - 1)).where(core, points)
        return lowest, (lowest != root).any()

    start = own.where(core, points), core.any()
    root, _ = repeat_while(lambda _, changed: changed.clone(), spread, start)
    number = (root == own).cumsum(1) - 1  # of the clusters up to each point
    label = number.gather(1, root.minimum(points - 1)).where(core, points)
    label = label[:, None].where(links, points).amin(2)
    return label.where(label < points, -1).masked_fill(~mask, -1)


def connect_compiled(x: Tensor, radius: Tensor, min_samples: int, mask: Tensor) -> Tensor:
    """The same as :func:`connect`, by a compiled loop over images on the CPU."""
    from pacavit.clustering.functional import kernels

    labels = torch.empty(mask.shape, dtype=torch.int64)
    arrays = (x.contiguous().numpy(), radius.double().numpy(), min_samples, mask.numpy())
    kernels.connected_cores(*arrays, labels.numpy())
    return labels


def reach(x: Tensor, mask: Tensor, nth: int) -> Tensor:
    """Squared distance of each point to its n-th nearest: (B, N).

    Opaque to compilers and tracers, and tensor operations for exporters.

    Args:
        x: (B, N, C), 0 at padding.
        mask: (B, N) bool, False at padding.
        nth: at least 1; the nearest is the point itself.

    Returns:
        In float64 (see ``wide``); infinite at padding, and in images with fewer points.
    """
    return (reach_tensors if torch.compiler.is_exporting() else _reach)(x, mask, nth)


@torch.library.custom_op("pacavit::reach", mutates_args=())
def _reach(x: Tensor, mask: Tensor, nth: int) -> Tensor:
    return (reach_compiled if x.device.type == "cpu" else reach_tensors)(x, mask, nth)


@_reach.register_fake
def _(x: Tensor, mask: Tensor, nth: int) -> Tensor:  # noqa: ARG001
    return wide(x.new_empty(mask.shape))


def reach_tensors(x: Tensor, mask: Tensor, nth: int) -> Tensor:
    """The same as :func:`reach`, by tensor operations."""
    distances = squared_distances(x, x)
    distances = distances.masked_fill(~(mask[:, None] & mask[..., None]), torch.inf)
    distances = F.pad(distances, (0, nth), value=torch.inf)
    return distances.topk(nth, dim=2, largest=False).values[..., -1]


def reach_compiled(x: Tensor, mask: Tensor, nth: int) -> Tensor:
    """The same as :func:`reach`, by a compiled loop over images on the CPU."""
    from pacavit.clustering.functional import kernels

    found = x.new_empty(mask.shape, dtype=torch.float64)
    kernels.reaches(x.contiguous().numpy(), mask.numpy(), nth, found.numpy())
    return found
