"""Hierarchical clustering inside the network."""

from __future__ import annotations

from torch import Tensor

from pacavit.clustering.base import CLUSTERINGS, Clustering
from pacavit.clustering.functional import _agglomerative, _points
from pacavit.clustering.kept import RESTS, keep_largest
from pacavit.types import Grid

__all__ = ["HierarchicalClustering"]


@CLUSTERINGS.register("hierarchical")
class HierarchicalClustering(Clustering):
    """Agglomerative clustering of each image's patches: (B, N, C) -> (B, M, N), hard.

    Larger grids are average-pooled to 256 cells first, because time and memory grow with the
    square of the patches.

    Args:
        dim: channels C.
        num_clusters: M; with a threshold, at most M.
        linkage: "ward", "average" or "complete".
        distance_threshold: clusters this far apart, in root mean squared distances of a channel,
            are not merged; None: always M clusters.
        rest: where patches go whose cluster is not among the M largest: "cluster", one of their
            own, or "nearest", the nearest of the others; only with a threshold.
        place: weight of where a patch lies beside its channels, see ``Clustering``; with some,
            clusters hang together.
    """

    differentiable = False
    exportable = False
    masked = True
    max_tokens = 256

    def __init__(
        self,
        dim: int,
        num_clusters: int,
        *,
        linkage: str = "ward",
        distance_threshold: float | None = None,
        rest: str = "cluster",
        place: float = 0.0,
    ) -> None:
        super().__init__(dim, num_clusters)
        _points.check_number("place", place, least=0)
        self.place = place
        _points.check_choice("linkage", linkage, _agglomerative.LINKAGES)
        _points.check_choice("rest", rest, RESTS)
        if distance_threshold is not None:
            _points.check_number("distance_threshold", distance_threshold, least=0, above=True)
        self.linkage = linkage
        self.distance_threshold = distance_threshold
        self.rest = rest

    @_points.exact
    def labels(self, x: Tensor, grid: Grid, patch_mask: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N)."""
        x, mask = _points.prepare(x, patch_mask)
        if self.distance_threshold is None:
            return _agglomerative.cluster(x, mask, self.linkage, self.num_clusters, None)[0]
        threshold = self.distance_threshold * self.dim**0.5
        labels, _ = _agglomerative.cluster(x, mask, self.linkage, None, threshold)
        return keep_largest(labels, self.num_clusters, x, mask, self.rest)
