"""Density-based clustering inside the network."""

from __future__ import annotations

from torch import Tensor

from pacavit.clustering.base import CLUSTERINGS, Clustering
from pacavit.clustering.functional import _dbscan, _points
from pacavit.clustering.kept import RESTS, keep_largest
from pacavit.errors import RecipeError
from pacavit.types import Grid

__all__ = ["DBSCANClustering"]


@CLUSTERINGS.register("dbscan")
class DBSCANClustering(Clustering):
    """DBSCAN of each image's patches: (B, N, C) -> (B, M, N), hard, with up to M clusters.

    A fixed radius would give one cluster or nothing but noise as soon as training changes the
    scale of the tokens; the default takes the radius of each image from its own distances. Larger
    grids are average-pooled to 256 cells first, because time and memory grow with the square of
    the patches.

    Args:
        dim: channels C.
        num_clusters: M, clusters kept, the largest ones.
        eps: radius of a neighbourhood, in root mean squared distances of a channel; None: by
            ``quantile``.
        quantile: the part of the patches, 0 to 1, that is to have ``min_samples`` patches within
            the radius.
        min_samples: patches in a neighbourhood that make its centre a core, itself included.
        rest: where noise and the patches of smaller clusters go: "cluster", one cluster of their
            own, or "nearest", the nearest of the others.
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
        eps: float | None = None,
        quantile: float = 0.5,
        min_samples: int = 3,
        rest: str = "nearest",
        place: float = 0.0,
    ) -> None:
        super().__init__(dim, num_clusters)
        _points.check_number("place", place, least=0)
        self.place = place
        if eps is not None:
            _points.check_number("eps", eps, least=0, above=True)
        if not 0 <= quantile <= 1:
            raise RecipeError(f"quantile must be in 0..1, not {quantile!r}")
        _points.check_count("min_samples", min_samples)
        _points.check_choice("rest", rest, RESTS)
        self.eps = eps
        self.quantile = quantile
        self.min_samples = min_samples
        self.rest = rest

    @_points.exact
    def labels(self, x: Tensor, grid: Grid, patch_mask: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N)."""
        x, mask = _points.prepare(x, patch_mask)
        if self.eps is None:
            radius = self._radius(x, mask)
        else:
            radius = _points.wide(x.new_empty(0)).new_full((x.shape[0],), self.eps**2 * self.dim)
        labels = _dbscan.connect(x, radius, self.min_samples, mask)
        return keep_largest(labels, self.num_clusters, x, mask, self.rest)

    def _radius(self, x: Tensor, mask: Tensor) -> Tensor:
        """The quantile over an image's patches of the distance to their n-th nearest: (B,)."""
        nth = min(self.min_samples, x.shape[1])
        reach = _dbscan.reach(x, mask, nth).sort(dim=1).values
        count = mask.sum(1, keepdim=True)
        index = (self.quantile * (count - 1)).round().long()
        return reach.gather(1, index)[:, 0]
