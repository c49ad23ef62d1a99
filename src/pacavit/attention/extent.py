"""The size of each image on a canvas, in patches."""

from __future__ import annotations

import torch
from torch import Tensor

from pacavit.types import Grid

__all__ = ["extent"]


def extent(grid: Grid, patch_mask: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows and columns of patches up to the last one that is not padding: (B,) or (1,) int64 each.

    Args:
        grid: height and width of the canvas.
        patch_mask: (B, N) bool, False where a patch is padding; None is no padding.
        device: of the result.
    """
    if patch_mask is None:
        # Tensors, so that a traced program computes them anew for every grid.
        height, width = (torch.scalar_tensor(n, dtype=torch.int64, device=device) for n in grid)
        return height[None], width[None]
    mask = patch_mask.unflatten(1, grid)
    rows, columns = (torch.arange(1, n + 1, device=device) for n in grid)
    return (mask.any(2) * rows).amax(1), (mask.any(1) * columns).amax(1)
