"""Gaussian mixtures inside the network."""

from __future__ import annotations

from torch import Tensor

from pacavit.clustering.base import CLUSTERINGS, Clustering
from pacavit.clustering.functional import _mixture, _points
from pacavit.clustering.kmeans import STARTS, starting_centers
from pacavit.types import Grid

__all__ = ["GaussianMixtureClustering"]

COVARIANCES = ("diag", "spherical")


@CLUSTERINGS.register("gmm")
class GaussianMixtureClustering(Clustering):
    """Rounds of expectation maximization, then the responsibilities: (B, N, C) -> (B, M, N).

    Gradients flow through the last responsibilities only, not through the iterations. Log-densities
    are divided by the number of channels and by a temperature: without that, a hundred channels
    make every responsibility 0 or 1.

    Args:
        dim: channels C.
        num_clusters: M.
        n_iter: number of iterations.
        covariance: "diag" (one variance per component and channel) or "spherical" (one per
            component).
        reg_covar: added to all variances.
        init: initial means, as in ``kmeans``; the initial variances are those of the whole image.
        temperature: of the softmax over components; the lower, the harder the assignment.
        hard: assign each patch to its most probable component only.
        seed: of "k-means++" and "random".
    """

    masked = True

    def __init__(
        self,
        dim: int,
        num_clusters: int,
        *,
        n_iter: int = 3,
        covariance: str = "diag",
        reg_covar: float = 1e-2,
        init: str = "grid",
        temperature: float = 0.1,
        hard: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(dim, num_clusters)
        _points.check_count("n_iter", n_iter)
        _points.check_number("reg_covar", reg_covar, least=0, above=True)
        _points.check_number("temperature", temperature, least=0, above=True)
        _points.check_seed("seed", seed)
        _points.check_choice("init", init, STARTS)
        _points.check_choice("covariance", covariance, COVARIANCES)
        self.n_iter = n_iter
        self.covariance = covariance
        self.reg_covar = reg_covar
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
        """(B, N, C) -> (B, M, N), logarithms of the responsibilities."""
        with _points.precise(x.device.type):
            x, mask = _points.prepare(x, patch_mask)
            mixture = self._iterate(x.detach(), grid, mask)
            temperature = self.dim * self.temperature
            # In float64: for distant groups, squares are large compared with distances inside them.
            points = _points.wide(x)
            _, log_resp = _mixture.expectation(points, mixture, self.covariance, temperature)
            return log_resp.to(x.dtype).transpose(1, 2)

    @_points.exact
    def labels(self, x: Tensor, grid: Grid, patch_mask: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N)."""
        return self.scores(x, grid, patch_mask).max(1).indices

    @_points.exact
    def _iterate(self, x: Tensor, grid: Grid, mask: Tensor) -> _mixture.Mixture:
        means = starting_centers(x, self.num_clusters, self.init, grid, mask, self.seed)
        around, _ = _points.center(x, mask)
        variances = around.square().sum(1) / mask.sum(1)[:, None] + self.reg_covar
        if self.covariance == "spherical":
            variances = variances.mean(1)
        variances = variances[:, None].expand(-1, self.num_clusters, *variances.shape[1:])
        weights = x.new_full((x.shape[0], self.num_clusters), 1 / self.num_clusters)
        mixture = _mixture.Mixture(weights, means, variances, variances.rsqrt())
        temperature = self.dim * self.temperature
        rules = _mixture.Rules(self.covariance, self.reg_covar, self.n_iter, None, temperature)
        return _mixture.fit(x, mixture, mask, rules).mixture
