"""Square windows of a grid, and attention inside of each."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.types import Grid

__all__ = ["WindowPartition"]


class _Axis(NamedTuple):
    """Windows along one side of a grid.

    Attributes:
        length: patches.
        side: slots of a window.
        count: windows; their slots are at least as many as the patches.
        shift: patches in the first window of the layout without wrapping; 0 for none.
    """

    length: int
    side: int
    count: int
    shift: int

    @property
    def slots(self) -> int:
        """Of all windows together."""
        return self.count * self.side

    def together(self, device: torch.device) -> Tensor:
        """(count, side, side) bool: the key is a patch, and in the same window as the query."""
        slot = torch.arange(self.slots, device=device)
        patch = (slot + self.shift) % self.slots
        window = (patch + self.side - self.shift) // self.side
        # The slots behind the last patch are no keys. They get a window that no query is in.
        keys = torch.where(patch < self.length, window, -1).view(self.count, 1, self.side)
        return window.view(self.count, self.side, 1) == keys


class WindowPartition:
    """A grid cut into windows of w x w patches: nW windows with K = w x w slots each.

    If a side is no multiple of w, the last windows have empty slots. A shift moves the windows by
    that many patches, cyclically: the first patches are wrapped into the last windows, where
    masks keep them apart from the others. An axis of at most w patches is one window, without
    shift.

    Args:
        grid: height and width in patches.
        size: w.
        shift: 0 <= shift < w.
    """

    def __init__(self, grid: Grid, size: int, shift: int = 0) -> None:
        # A traced program is for all grids, so it must not depend on comparisons of their sides.
        self._traced = torch.compiler.is_compiling()
        self._grid = grid
        self._shifts = shift > 0
        self._rows, self._columns = (self._axis(side, size, shift) for side in grid)

    def split(self, x: Tensor, num_heads: int = 1) -> Tensor:
        """(B, N, C) -> (B, nW x h, K, C / h), 0 in empty slots."""
        rows, columns = self._rows, self._columns
        x = x.unflatten(1, self._grid)
        if not self._fits():
            empty = (0, 0, 0, columns.slots - columns.length, 0, rows.slots - rows.length)
            x = F.pad(x, empty)
        if self._shifts:
            x = torch.roll(x, (-rows.shift, -columns.shift), (1, 2))
        x = x.unflatten(3, (num_heads, -1))
        x = x.unflatten(2, (columns.count, columns.side)).unflatten(1, (rows.count, rows.side))
        return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(1, 3)

    def join(self, windows: Tensor, num_heads: int = 1) -> Tensor:
        """(B, nW x h, K, C / h) -> (B, N, C), the inverse of :meth:`split`."""
        rows, columns = self._rows, self._columns
        x = windows.unflatten(1, (rows.count, columns.count, num_heads))
        x = x.unflatten(4, (rows.side, columns.side)).permute(0, 1, 4, 2, 5, 3, 6)
        x = x.flatten(5).flatten(3, 4).flatten(1, 2)
        if self._shifts:
            x = torch.roll(x, (rows.shift, columns.shift), (1, 2))
        if not self._fits():
            x = x[:, : rows.length, : columns.length]
        return x.flatten(1, 2)

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
        q, k, v = (self.split(each, num_heads) for each in (q, k, v))
        mask = self._mask(q, num_heads, patch_mask, bias)
        return self.join(F.scaled_dot_product_attention(q, k, v, attn_mask=mask), num_heads)

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
        q, k, v = (self.split(each, num_heads) for each in (q, k, v))
        scores = q @ k.mT * q.shape[3] ** -0.5
        mask = self._mask(q, num_heads, patch_mask, bias)
        if mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, -torch.inf)
        elif mask is not None:
            scores = scores + mask
        weights = self.join(scores.softmax(3), num_heads)
        weights = weights.unflatten(2, (num_heads, -1)).transpose(1, 2)
        inside = self.split(weights.transpose(1, 2).flatten(2), num_heads)
        return self.join(inside @ v, num_heads), weights

    def keys(self, device: torch.device) -> Tensor:
        """(1, N, K) int64: the patches in the window of each; an arbitrary one for empty slots."""
        patches = torch.arange(self._grid.num_patches, device=device)
        windows = self.split(patches[None, :, None]).mT
        return self.join(windows.expand(-1, -1, windows.shape[3], -1))

    def offsets(self, size: int, device: torch.device) -> Tensor:
        """(K, K) int64, the row of a table with (2 size - 1)^2 relative positions for each pair."""
        down, right = (
            torch.arange(axis.side, device=device)[:, None]
            - torch.arange(axis.side, device=device)
            + size
            - 1
            for axis in (self._rows, self._columns)
        )
        pairs = down[:, None, :, None] * (2 * size - 1) + right[None, :, None]
        return pairs.flatten(2).flatten(0, 1)

    def _axis(self, length: int, size: int, shift: int) -> _Axis:
        if self._traced:
            count = (length + size - 1) // size
            return _Axis(length, size, count, shift * torch.sym_min(1, length // (size + 1)))
        side = min(size, length)
        return _Axis(length, side, -(-length // side), shift if length > size else 0)

    def _fits(self) -> bool:
        """Whether it is certain that there are no empty slots."""
        axes = (self._rows, self._columns)
        return not self._traced and all(axis.slots == axis.length for axis in axes)

    def _mask(
        self, like: Tensor, num_heads: int, patch_mask: Tensor | None, bias: Tensor | None
    ) -> Tensor | None:
        """What is added to the scores, or where they are allowed: (B or 1, nW x h, K, K)."""
        allowed = self._allowed(like.device, patch_mask)
        if bias is None:
            mask = None if allowed is None else allowed[:, :, None].expand(-1, -1, num_heads, -1, -1)
        else:
            bias = bias.to(like)
            if allowed is None:
                mask = bias.expand(1, self._rows.count * self._columns.count, -1, -1, -1)
            else:
                mask = torch.where(allowed[:, :, None], bias, -torch.inf)
        return None if mask is None else mask.flatten(1, 2)

    def _allowed(self, device: torch.device, patch_mask: Tensor | None) -> Tensor | None:
        """Which query (third axis) sees which key: (B or 1, nW, K, K) bool; None for all."""
        if patch_mask is None and not self._shifts and self._fits():
            return None
        down, right = self._rows.together(device), self._columns.together(device)
        pairs = down[:, None, :, None, :, None] & right[None, :, None, :, None]
        allowed = pairs.flatten(4).flatten(2, 3).flatten(0, 1)[None]
        if patch_mask is not None:
            real = self.split(patch_mask[..., None].to(torch.uint8))[..., 0].bool()
            allowed = allowed & real[:, :, None]
        # Padding and empty slots see themselves, so that the softmax of no row is undefined.
        return allowed | torch.eye(allowed.shape[3], dtype=torch.bool, device=device)
