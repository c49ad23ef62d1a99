"""Hierarchical clustering inside the network."""

from __future__ import annotations

from types import MappingProxyType

from torch import Tensor

from pacavit.clustering.base import CLUSTERINGS, Clustering
from pacavit.clustering.functional import _agglomerative, _points
from pacavit.clustering.kept import OUTLIERS, keep_largest
from pacavit.types import Grid

__all__ = ["HierarchicalClustering"]


@CLUSTERINGS.register("hierarchical")
class HierarchicalClustering(Clustering):
    """Agglomerative clustering of each image's patches: (B, N, C) -> (B, M, N), hard.

    Larger grids are average-pooled to 256 cells first, because time and memory grow with the
    square of the number of patches.

    Args:
        dim: channels C.
        num_clusters: M; with a threshold, at most M.
        linkage: "ward", "average" or "complete".
        distance_threshold: clusters this far apart or farther, as the root mean square difference
            per channel, are not merged; None: always M clusters.
        outliers: patches whose cluster is not among the M largest form one cluster ("cluster"), or
            each joins the nearest of the kept clusters ("nearest"); only with a threshold.
        position_weight: weight of a patch's position beside its channels, see ``Clustering``; above
            0, clusters are more compact.
    """

    differentiable = False
    masked = True
    max_tokens = 256
    renamed_options = MappingProxyType({"place": "position_weight", "rest": "outliers"})

    def __init__(
        self,
        dim: int,
        num_clusters: int,
        *,
        linkage: str = "ward",
        distance_threshold: float | None = None,
        outliers: str = "cluster",
        position_weight: float = 0.0,
    ) -> None:
        super().__init__(dim, num_clusters)
        _points.check_number("position_weight", position_weight, least=0)
        self.position_weight = position_weight
        _points.check_choice("linkage", linkage, _agglomerative.LINKAGES)
        _points.check_choice("outliers", outliers, OUTLIERS)
        if distance_threshold is not None:
            _points.check_number("distance_threshold", distance_threshold, least=0, above=True)
        self.linkage = linkage
        self.distance_threshold = distance_threshold
        self.outliers = outliers

    @_points.exact
    def labels(self, x: Tensor, grid: Grid, patch_mask: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N)."""
        x, mask = _points.prepare(x, patch_mask)
        if self.distance_threshold is None:
            return _agglomerative.cluster(x, mask, self.linkage, self.num_clusters, None)[0]
        threshold = self.distance_threshold * self.dim**0.5
        labels, _ = _agglomerative.cluster(x, mask, self.linkage, None, threshold)
        return keep_largest(labels, self.num_clusters, x, mask, self.outliers)
