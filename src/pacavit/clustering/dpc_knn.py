"""Density peaks with the densities of nearest neighbors (DPC-KNN)."""

from __future__ import annotations

import torch
from torch import Tensor

from pacavit.clustering.base import CLUSTERINGS, Clustering
from pacavit.clustering.functional import _points
from pacavit.types import Grid
from pacavit.utils.exporting import stable_argsort

__all__ = ["DensityPeakClustering"]


@CLUSTERINGS.register("dpc_knn")
class DensityPeakClustering(Clustering):
    """Patches that are dense and far from denser ones are centers: (B, N, C) -> (B, M, N), hard.

    Density peaks (Rodriguez and Laio, Science 2014) with k nearest neighbors (Du et al.,
    Knowledge-Based Systems 2016), as in TCFormer (Zeng et al., CVPR 2022, arXiv:2204.08680). With
    distances d divided by sqrt C, the density of a patch is rho = exp(-mean of d^2 to its k
    nearest, itself included); its distance delta is that to the nearest patch of higher density,
    for the densest patch the largest one. The M patches of highest rho delta are centers, and each
    patch joins the nearest center, a center itself. Clusters are numbered by rho delta. Of equal
    patches the first counts as denser, where TCFormer adds noise, and the largest distance is that
    of the image, where TCFormer takes the batch's.

    Larger grids are average-pooled to 256 cells first, because time and memory grow with the
    square of the number of patches.

    Args:
        dim: channels C.
        num_clusters: M.
        k: number of nearest neighbors of the density, the patch itself included.
        position_weight: weight of a patch's position beside its channels, see ``Clustering``; above
            0, clusters are more compact.
    """

    differentiable = False
    masked = True
    max_tokens = 256

    def __init__(
        self, dim: int, num_clusters: int, *, k: int = 5, position_weight: float = 0.0
    ) -> None:
        super().__init__(dim, num_clusters)
        _points.check_count("k", k)
        _points.check_number("position_weight", position_weight, least=0)
        self.k = k
        self.position_weight = position_weight

    @_points.exact
    def labels(self, x: Tensor, grid: Grid, patch_mask: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N)."""
        x, mask = _points.prepare(x, patch_mask)
        apart = _distances(x, mask) / x.shape[2]
        number = torch.arange(x.shape[1], device=x.device)
        count = mask.sum(1)[:, None]
        nearest = apart.sort(dim=2).values
        neighbors = number < count.clamp(max=self.k)[..., None]
        # The logarithm of the density, which has the same order and does not underflow.
        log_density = -nearest.where(neighbors, 0).sum(2) / count.clamp(max=self.k)
        log_density = log_density.masked_fill(~mask, -torch.inf)
        denser = (log_density[:, None] > log_density[..., None]) | (
            (log_density[:, None] == log_density[..., None]) & (number < number[:, None])
        )
        above = apart.where(denser, torch.inf).amin(2)
        largest = apart.where(mask[:, None] & mask[..., None], 0).amax(2)
        delta = above.where(above.isfinite(), largest)
        # log(rho delta), delta not squared.
        score = (log_density + delta.log() / 2).masked_fill(~mask, -torch.inf)
        # Copies of a patch have delta 0; they come after all others and before padding.
        order = score.clamp(min=-1e30).masked_fill(~mask, -torch.inf)
        rank = stable_argsort(order, descending=True).argsort(dim=1)
        is_center = (rank < self.num_clusters) & mask
        apart = apart.masked_fill(~is_center[:, None], torch.inf)
        own = number == number[:, None]
        apart = apart.masked_fill(own & is_center[:, None], -1)
        return rank.gather(1, apart.argmin(2)).masked_fill(~mask, -1)


def _distances(x: Tensor, mask: Tensor) -> Tensor:
    """Squared distances (B, N, N), 0 between equal points, infinite to padding.

    Computed in float64 and rounded to fp32, so that distances that are equal compare as equal.
    """
    x, _ = _points.center(_points.wide(x), mask)
    square = x.square().sum(2)
    sums = square[:, None] + square[..., None]
    apart = sums - 2 * x @ x.transpose(1, 2)
    apart = apart.where(apart > 1e-12 * sums, 0).float()
    return apart.masked_fill(~mask[:, None], torch.inf)
