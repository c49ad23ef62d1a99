"""Control: clusters are the cells of a regular grid, whatever the image shows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pacavit.clustering.base import CLUSTERINGS, Clustering
from pacavit.types import Grid

__all__ = ["GridClustering"]


@CLUSTERINGS.register("grid")
class GridClustering(Clustering):
    """M rectangular cells of nearly equal size: (B, N, C) -> (B, M, N).

    Aggregation becomes average pooling, so this control tells what clustering by content adds.
    With fewer patches than clusters every patch is its own cell.

    Args:
        dim: channels C.
        num_clusters: M.
    """

    differentiable = False
    exportable = False  # the number of bands is computed from the very grid it is traced with

    def labels(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, N, C) -> (B, N): bands of rows, each cut into columns."""
        height, width = grid
        num_cells = min(self.num_clusters, grid.num_patches)
        bands = round(math.sqrt(num_cells * height / width))
        bands = max(math.ceil(num_cells / width), min(bands, height, num_cells))
        band = torch.arange(height, device=x.device) * bands // height
        first = num_cells * band // bands
        columns = num_cells * (band + 1) // bands - first
        column = torch.arange(width, device=x.device) * columns[:, None] // width
        return (first[:, None] + column).flatten().expand(x.shape[0], -1)
