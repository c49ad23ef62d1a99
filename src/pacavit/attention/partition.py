"""Square windows of a grid, and attention inside of each."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.types import Grid
from pacavit.utils.exporting import remainder, smaller

__all__ = ["WindowPartition"]


class WindowPartition:
    """A grid cut into windows of w x w patches: nW windows with K = w x w slots each.

    Windows start in the upper left corner. If a side is no multiple of w, slots of the last
    windows are empty. A shift moves the windows by that many patches, cyclically: the first
    patches share windows with the last ones, and ``group`` tells them apart.

    In a traced program, which is for all grids, there is one more window, all empty, because
    PyTorch traces an axis of length 1 for that length only.

    Args:
        grid: height and width in patches.
        size: w.
        device: of the tokens.
        shift: 0 <= shift < w; an axis of at most w patches is not shifted.
        clip: an axis of fewer than w patches has windows of its own length, not of w.

    Attributes:
        source: (nW, K) int64, the patch in each slot; an arbitrary one in empty slots.
        group: (nW, K) int64, the number of the window without wrapping; -1 for empty slots.
        place: (N,) int64, the slot of each patch among all nW x K.
        full: no slot is empty, and no window is wrapped. False in a traced program.
        spare: there is the empty window of traced programs.
    """

    def __init__(
        self,
        grid: Grid,
        size: int,
        device: torch.device,
        *,
        shift: int = 0,
        clip: bool = True,
    ) -> None:
        self.spare = traced = torch.compiler.is_compiling()
        clip = clip and not traced
        self.sides = sides = [min(size, n) if clip else size for n in grid]
        counts = [(n + side - 1) // side for n, side in zip(grid, sides, strict=True)]
        slots = [count * side for count, side in zip(counts, sides, strict=True)]
        # Products instead of comparisons, which would bind a traced program to its first grid.
        shifts = [shift * smaller(1, n // (size + 1)) for n in grid]

        window = torch.arange(counts[0] * counts[1] + traced, device=device)[:, None]
        slot = torch.arange(sides[0] * sides[1], device=device)
        rows = window // counts[1] * sides[0] + slot // sides[1]
        columns = remainder(window, counts[1]) * sides[1] + slot % sides[1]
        row, column = (
            remainder(rows + shifts[0], slots[0]),
            remainder(columns + shifts[1], slots[1]),
        )
        inside = (row < grid.height) & (column < grid.width) & (rows < slots[0])
        self.source = torch.where(inside, row * grid.width + column, 0)
        down, right = (
            (place + side - moved) // side
            for place, side, moved in zip((row, column), sides, shifts, strict=True)
        )
        self.group = torch.where(inside, down * (counts[1] + 1) + right, -1)

        row = torch.arange(grid.height, device=device)[:, None]
        column = torch.arange(grid.width, device=device)
        row, column = remainder(row - shifts[0], slots[0]), remainder(column - shifts[1], slots[1])
        window = row // sides[0] * counts[1] + column // sides[1]
        slot = row % sides[0] * sides[1] + column % sides[1]
        self.place = (window * (sides[0] * sides[1]) + slot).flatten()
        self.full = not traced and not any(shifts) and slots == [*grid]

    def split(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, nW, K, C)."""
        return x.index_select(1, self.source.flatten()).unflatten(1, self.source.shape)

    def join(self, windows: Tensor) -> Tensor:
        """(B, nW, K, C) -> (B, N, C), the inverse of :meth:`split`."""
        return windows.flatten(1, 2).index_select(1, self.place)

    def real(self, patch_mask: Tensor | None) -> Tensor:
        """(B, N) bool or None -> (B or 1, nW, K) bool, False in empty slots and at padding."""
        filled = (self.group >= 0)[None]
        return filled if patch_mask is None else filled & self.split(patch_mask[..., None])[..., 0]

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        num_heads: int,
        patch_mask: Tensor | None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Softmax attention of every patch to those of its window -> (B, N, C).

        Args:
            q: (B, N, C), queries of all heads.
            k: (B, N, C), keys of all heads.
            v: (B, N, C), values of all heads.
            num_heads: h.
            patch_mask: (B, N) bool, False where a patch is padding.
            bias: (h, K, K), added to the scores of a window; see :meth:`offsets`.
        """
        q, k, v = (self._heads(each, num_heads) for each in (q, k, v))
        mask = self._mask(q, num_heads, patch_mask, bias)
        return self._tokens(F.scaled_dot_product_attention(q, k, v, attn_mask=mask), num_heads)

    def attend_recorded(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        num_heads: int,
        patch_mask: Tensor | None,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """:meth:`attend`, and the weights (B, h, N, K) that it computes the tokens from."""
        q, k, v = (self._heads(each, num_heads) for each in (q, k, v))
        scores = q @ k.mT * q.shape[3] ** -0.5
        mask = self._mask(q, num_heads, patch_mask, bias)
        if mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, -torch.inf)
        elif mask is not None:
            scores = scores + mask
        weights = self._tokens(scores.softmax(3), num_heads)
        weights = weights.unflatten(2, (num_heads, -1)).transpose(1, 2)
        inside = self._heads(weights.transpose(1, 2).flatten(2), num_heads)
        return self._tokens(inside @ v, num_heads), weights

    def keys(self) -> Tensor:
        """(1, N, K) int64: the patches in the window of each; an arbitrary one for empty slots."""
        return self.source[self.place // self.source.shape[1]][None]

    def offsets(self, size: int) -> Tensor:
        """(K, K) int64, the row of a table of (2 size - 1)^2 relative positions for each pair."""
        slot = torch.arange(self.source.shape[1], device=self.source.device)
        row, column = slot // self.sides[1], slot % self.sides[1]
        down, right = (each[:, None] - each + size - 1 for each in (row, column))
        return down * (2 * size - 1) + right

    def _heads(self, x: Tensor, num_heads: int) -> Tensor:
        """(B, N, C) -> (B, nW x h, K, d)."""
        return self.split(x).unflatten(3, (num_heads, -1)).transpose(2, 3).flatten(1, 2)

    def _tokens(self, x: Tensor, num_heads: int) -> Tensor:
        """(B, nW x h, K, d) -> (B, N, C)."""
        return self.join(x.unflatten(1, (-1, num_heads)).transpose(2, 3).flatten(3))

    def _mask(
        self, like: Tensor, num_heads: int, patch_mask: Tensor | None, bias: Tensor | None
    ) -> Tensor | None:
        """What is added to the scores, or where they are allowed: (B or 1, nW x h, K, K)."""
        allowed = self._allowed(patch_mask)
        if bias is not None:
            # With one axis for windows and heads, the mask need not be copied for each image.
            bias = bias.to(like).expand(1, self.source.shape[0], -1, -1, -1)
            mask = bias if allowed is None else torch.where(allowed, bias, -torch.inf)
        elif allowed is not None:
            mask = allowed.expand(-1, -1, num_heads, -1, -1)
        else:
            return None
        return mask.flatten(1, 2)

    def _allowed(self, patch_mask: Tensor | None) -> Tensor | None:
        """Which query (fourth axis) sees which key: (B or 1, nW, 1, K, K) bool; None for all."""
        if self.full and patch_mask is None:
            return None
        together = self.group[:, :, None] == self.group[:, None]
        allowed = together & self.real(patch_mask)[:, :, None]
        # Padding and empty slots see themselves, so that the softmax of no row is undefined.
        eye = torch.eye(self.source.shape[1], dtype=torch.bool, device=self.source.device)
        return (allowed | eye)[:, :, None]
