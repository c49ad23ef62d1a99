"""Control: a fixed random partition of the grid, independent of the image."""

from __future__ import annotations

import torch
from torch import Tensor

from pacavit.clustering.base import CLUSTERINGS, Clustering
from pacavit.clustering.functional import _points
from pacavit.types import Grid
from pacavit.utils.exporting import smaller, stable_argsort

__all__ = ["RandomClustering"]


@CLUSTERINGS.register("random")
class RandomClustering(Clustering):
    """M scattered sets of patches of nearly equal size: (B, N, C) -> (B, M, N).

    The partition is computed from a hash of the patch positions, so it is the same for every image,
    run and machine. The difference to ``grid`` shows the effect of spatial coherence alone.

    Args:
        dim: channels C.
        num_clusters: M.
        seed: of the partition.
    """

    differentiable = False

    def __init__(self, dim: int, num_clusters: int, *, seed: int = 0) -> None:
        super().__init__(dim, num_clusters)
        _points.check_seed("seed", seed)
        self.seed = seed

    def labels(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, N, C) -> (B, N)."""
        num_patches = grid.num_patches
        position = torch.arange(num_patches, device=x.device)
        # A multiplicative hash: the top bits of the product are scattered, the order they
        # induce is a random permutation.
        mixed = (position + 1) * (0x9E3779B1 + 2 * self.seed) % 0xFFFFFFFB
        mixed = (mixed ^ (mixed >> 15)) * 0x45D9F3B % 0xFFFFFFFB
        rank = stable_argsort(mixed).argsort()
        num_sets = smaller(self.num_clusters, num_patches)
        return (rank * num_sets // num_patches).expand(x.shape[0], -1)
