"""Density-based clustering inside the network."""

from __future__ import annotations

from types import MappingProxyType

from torch import Tensor

from pacavit.clustering.base import CLUSTERINGS, Clustering
from pacavit.clustering.functional import _dbscan, _points
from pacavit.clustering.kept import OUTLIERS, keep_largest
from pacavit.errors import RecipeError
from pacavit.types import Grid

__all__ = ["DBSCANClustering"]


@CLUSTERINGS.register("dbscan")
class DBSCANClustering(Clustering):
    """DBSCAN of each image's patches: (B, N, C) -> (B, M, N), hard, with up to M clusters.

    With a fixed radius there would be one cluster, or noise only, as soon as training changes the
    scale of the tokens; by default the radius of each image follows from its own distances. Larger
    grids are average-pooled to 256 cells first, because time and memory grow with the square of
    the number of patches.

    Args:
        dim: channels C.
        num_clusters: M; the largest clusters are kept.
        eps: radius of a neighborhood, as the root mean square difference per channel; None derives
            it from ``quantile``.
        quantile: the radius is such that this fraction of the patches, 0 to 1, have
            ``min_samples`` patches within it.
        min_samples: a patch with this many patches within the radius, itself included, is a core.
        outliers: noise and the patches of smaller clusters form one cluster ("cluster"), or each
            joins the nearest of the kept clusters ("nearest").
        position_weight: weight of a patch's position beside its channels, see ``Clustering``; above
            0, clusters are more compact.
    """

    differentiable = False
    stable = False  # the radius is one of the distances: rounding decides who is a neighbor
    masked = True
    max_tokens = 256
    renamed_options = MappingProxyType({"place": "position_weight", "rest": "outliers"})

    def __init__(
        self,
        dim: int,
        num_clusters: int,
        *,
        eps: float | None = None,
        quantile: float = 0.5,
        min_samples: int = 3,
        outliers: str = "nearest",
        position_weight: float = 0.0,
    ) -> None:
        super().__init__(dim, num_clusters)
        _points.check_number("position_weight", position_weight, least=0)
        self.position_weight = position_weight
        if eps is not None:
            _points.check_number("eps", eps, least=0, above=True)
        if not 0 <= quantile <= 1:
            raise RecipeError(f"quantile must be in 0..1, not {quantile!r}")
        _points.check_count("min_samples", min_samples)
        _points.check_choice("outliers", outliers, OUTLIERS)
        self.eps = eps
        self.quantile = quantile
        self.min_samples = min_samples
        self.outliers = outliers

    @_points.exact
    def labels(self, x: Tensor, grid: Grid, patch_mask: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N)."""
        x, mask = _points.prepare(x, patch_mask)
        if self.eps is None:
            radius = self._radius(x, mask)
        else:
            radius = _points.wide(x.new_empty(0)).new_full((x.shape[0],), self.eps**2 * self.dim)
        labels = _dbscan.connect(x, radius, self.min_samples, mask)
        return keep_largest(labels, self.num_clusters, x, mask, self.outliers)

    def _radius(self, x: Tensor, mask: Tensor) -> Tensor:
        """Squared radius: the quantile of the patches' distances to their n-th nearest: (B,)."""
        reach = _dbscan.reach(x, mask, self.min_samples).sort(dim=1).values
        count = mask.sum(1, keepdim=True)
        index = (self.quantile * (count - 1)).round().long()
        return reach.gather(1, index)[:, 0]
