"""Control: clusters are the cells of a regular grid, independent of the image."""

from __future__ import annotations

import torch
from torch import Tensor

from pacavit.clustering.base import CLUSTERINGS, Clustering
from pacavit.types import Grid

__all__ = ["GridClustering", "grid_cells", "grid_means"]


@CLUSTERINGS.register("grid")
class GridClustering(Clustering):
    """M rectangular cells of nearly equal size: (B, N, C) -> (B, M, N).

    Aggregation is then average pooling, so this control shows what clustering by content adds.
    With fewer patches than clusters every patch is its own cell.

    Args:
        dim: channels C.
        num_clusters: M.
    """

    differentiable = False

    def labels(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, N, C) -> (B, N): bands of rows, each cut into columns."""
        return grid_cells(self.num_clusters, grid, x.device).expand(x.shape[0], -1)


def grid_cells(num_clusters: int, grid: Grid, device: torch.device) -> Tensor:
    """The cell 0..M-1 of every patch: (N,) int64."""
    # Tensors instead of numbers, so that a traced program computes them anew for every grid.
    height, width = (torch.scalar_tensor(side, dtype=torch.int64, device=device) for side in grid)
    num_cells = (height * width).clamp(max=num_clusters)
    bands = (num_cells * height / width).sqrt().round().long()
    fewest = (num_cells + width - 1) // width
    bands = bands.minimum(height).minimum(num_cells).maximum(fewest)
    band = torch.arange(grid.height, device=device) * bands // height
    first = num_cells * band // bands
    columns = num_cells * (band + 1) // bands - first
    column = torch.arange(grid.width, device=device) * columns[:, None] // width
    return (first[:, None] + column).flatten()


def grid_means(x: Tensor, num_clusters: int, grid: Grid, mask: Tensor) -> Tensor:
    """Means of the cells: (B, N, C) -> (B, M, C); 0 for cells without patches.

    Args:
        x: (B, N, C), 0 at padding.
        num_clusters: M.
        grid: height and width.
        mask: (B, N) bool, False at padding.
    """
    cell = grid_cells(num_clusters, grid, x.device)
    members = (cell == torch.arange(num_clusters, device=x.device)[:, None]).to(x)
    size = mask.to(x) @ members.T
    return (members @ x) / size.clamp(min=1)[..., None]
