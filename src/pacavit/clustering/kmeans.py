"""k-means inside the network."""

from __future__ import annotations

from types import MappingProxyType

from torch import Tensor
from torch.nn import functional as F

from pacavit.clustering.base import CLUSTERINGS, Clustering
from pacavit.clustering.functional import _kmeans, _points, _starts
from pacavit.clustering.grid import grid_means
from pacavit.types import Grid

__all__ = ["STARTS", "KMeansClustering", "starting_centers"]

STARTS = ("grid", *_starts.STARTS)


@CLUSTERINGS.register("kmeans")
class KMeansClustering(Clustering):
    """Rounds of Lloyd's algorithm, then a soft assignment to the centers: (B, N, C) -> (B, M, N).

    Gradients flow through the last assignment only, not through the iterations.

    Args:
        dim: channels C.
        num_clusters: M.
        n_iter: number of iterations.
        init: initial centers: "grid", the means of the cells of a regular grid, or
            "farthest", "k-means++" or "random" as in ``functional.kmeans``.
        temperature: of the softmax over clusters, as the mean squared difference per channel; the
            lower, the harder the assignment.
        hard: assign each patch to its nearest center only.
        seed: of "k-means++" and "random".
        position_weight: weight of a patch's position beside its channels, see ``Clustering``; above
            0, clusters are more compact.
    """

    masked = True
    renamed_options = MappingProxyType({"place": "position_weight"})

    def __init__(
        self,
        dim: int,
        num_clusters: int,
        *,
        n_iter: int = 3,
        init: str = "grid",
        temperature: float = 0.2,
        hard: bool = False,
        seed: int = 0,
        position_weight: float = 0.0,
    ) -> None:
        super().__init__(dim, num_clusters)
        _points.check_number("position_weight", position_weight, least=0)
        self.position_weight = position_weight
        _points.check_count("n_iter", n_iter)
        _points.check_number("temperature", temperature, least=0, above=True)
        _points.check_seed("seed", seed)
        _points.check_choice("init", init, STARTS)
        self.n_iter = n_iter
        self.init = init
        self.temperature = temperature
        self.hard = hard
        self.seed = seed
        self.differentiable = not hard

    def export_refusal(self) -> str | None:
        """Random starts depend on the number of patches, which a program does not know."""
        if self.init == "random":
            return 'init "random" draws for one number of patches; use another init, as "grid"'
        return super().export_refusal()

    def scores(self, x: Tensor, grid: Grid, patch_mask: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, M, N), logarithms of the membership of patches in clusters."""
        with _points.precise(x.device.type):
            x, mask = _points.prepare(x, patch_mask)
            _, centers = self._iterate(x.detach(), grid, mask)
            # In float64: for distant groups, squares are large compared with distances inside them.
            apart = _points.relative_distances(_points.wide(x), centers)
            logarithms = F.log_softmax(apart / (-self.dim * self.temperature), 2)
            return logarithms.to(x.dtype).transpose(1, 2)

    @_points.exact
    def labels(self, x: Tensor, grid: Grid, patch_mask: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N)."""
        x, mask = _points.prepare(x, patch_mask)
        return self._iterate(x, grid, mask)[0]

    @_points.exact
    def _iterate(self, x: Tensor, grid: Grid, mask: Tensor) -> tuple[Tensor, Tensor]:
        start = starting_centers(x, self.num_clusters, self.init, grid, mask, self.seed)
        labels, centers, _, _ = _kmeans.lloyd(x, start, mask, self.n_iter, None)
        return labels, centers


def starting_centers(
    x: Tensor, num_clusters: int, init: str, grid: Grid, mask: Tensor, seed: int
) -> Tensor:
    """Initial centers: (B, N, C) -> (B, M, C).

    Args:
        x: (B, N, C), 0 at padding.
        num_clusters: M.
        init: one of ``STARTS``.
        grid: height and width.
        mask: (B, N) bool, False at padding.
        seed: of "k-means++" and "random".
    """
    if init == "grid":
        return grid_means(x, num_clusters, grid, mask)
    return _starts.initial_centers(x, num_clusters, init, mask, seed)
