"""Soft association of patches with neighboring super tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from pacavit.clustering.base import CLUSTERINGS, Clustering
from pacavit.clustering.functional import _points
from pacavit.clustering.grid import grid_cells, grid_means
from pacavit.types import Grid
from pacavit.utils.exporting import remainder

__all__ = ["SuperTokenClustering"]

_UNUSED = -1e4
"""Logarithm of the membership of every patch in a super token that has no patches near it."""


@CLUSTERINGS.register("super_tokens")
class SuperTokenClustering(Clustering):
    """Each patch belongs to the 9 super tokens around it, softly: (B, N, C) -> (B, M, N).

    Huang et al., "Vision Transformer with Super Token Sampling", CVPR 2023, arXiv:2211.11167. The
    super tokens S start as means of the cells of a grid. The association of a patch x is
    Q = softmax(x S^T / sqrt C) over its own cell and the eight around it, and the super tokens are
    the means of patches weighted by Q, once or several times. With any M the cells form bands of
    rows with almost equal numbers of cells, so "around" is: in the bands above, of and below the
    patch, the cell at its column and the ones beside. With padding, cells are those of the canvas.

    The paper computes only 9 N similarities; here all N M are, since an assignment is (M, N), and
    those of other cells are dropped. Gradients flow through the last association only.

    Args:
        dim: channels C.
        num_clusters: M. With more clusters than patches, the last ones belong to no patch.
        n_iter: number of associations; 1 in the paper.
    """

    masked = True

    def __init__(self, dim: int, num_clusters: int, *, n_iter: int = 1) -> None:
        super().__init__(dim, num_clusters)
        _points.check_count("n_iter", n_iter)
        self.n_iter = n_iter

    def scores(self, x: Tensor, grid: Grid, patch_mask: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, M, N), logarithms of the membership of patches in super tokens."""
        with _points.precise(x.device.type):
            x, mask = _points.prepare(x, patch_mask)
            near = _neighbors(self.num_clusters, grid, mask)
            with torch.no_grad():
                tokens = grid_means(x, self.num_clusters, grid, mask)
                for _ in range(self.n_iter - 1):
                    weights = self._associate(x, tokens, near).exp() * mask[:, None]
                    total = weights.sum(2, keepdim=True)
                    tokens = torch.where(total > 0, weights @ x / total.clamp(min=1e-12), tokens)
            logarithms = self._associate(x, tokens, near)
            used = (near & mask[:, None]).any(2, keepdim=True)
            return logarithms.where(used, _UNUSED)

    def _associate(self, x: Tensor, tokens: Tensor, near: Tensor) -> Tensor:
        """Logarithms of the softmax over neighbors: (B, N, C), (B, M, C) -> (B, M, N)."""
        scores = tokens @ x.transpose(1, 2) * self.dim**-0.5
        return scores.masked_fill(~near, -torch.inf).log_softmax(1)


def _neighbors(num_clusters: int, grid: Grid, mask: Tensor) -> Tensor:
    """Which super tokens are around which patches: (B, M, N) bool.

    Super tokens without patches are around none; all are around padding, whose softmax would be
    empty otherwise.

    Args:
        num_clusters: M.
        grid: height and width.
        mask: (B, N) bool, False at padding.
    """
    device = mask.device
    number = torch.arange(num_clusters, device=device)
    cell = grid_cells(num_clusters, grid, device)
    in_rows = cell.view(grid)
    # Bands are numbered by counting the rows that begin with another cell than the row before.
    first = in_rows[:, 0]
    row = torch.arange(grid.height, device=device)
    band_of_row = (first != first[(row - 1).clamp(min=0)]).long().cumsum(0)
    members = number[:, None] == cell
    patch = torch.arange(grid.num_patches, device=device)
    band_of_patch = band_of_row[patch // grid.width]
    band = torch.where(members, band_of_patch, -2).amax(1)  # of each cell; -2 without patches
    close = (band[:, None] - band_of_patch).abs() <= 1
    # In each row, the cell at every column, and the ones before and after it in its band.
    at_column = (in_rows[:, None, :] == number[:, None]).any(0)  # (M, W)
    before, after = at_column.roll(-1, 0), at_column.roll(1, 0)
    beside = at_column | (before & _same(band, -1)) | (after & _same(band, 1))
    close = close & beside[:, remainder(patch, grid.width)]
    filled = (members & mask[:, None]).any(2)
    return (close & filled[..., None]) | ~mask[:, None]


def _same(band: Tensor, shift: int) -> Tensor:
    """Whether a cell is in the band of the next (-1) or the one before (1): (M, 1) bool."""
    number = torch.arange(len(band), device=band.device)
    inside = number < len(band) - 1 if shift < 0 else number > 0
    return ((band.roll(shift) == band) & inside)[:, None]
