"""Focal Transformer: Yang et al., NeurIPS 2021, https://arxiv.org/abs/2107.00641."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FocalAttention", "FocalTransformer", "around", "outside_patches", "partition", "ring"]

_WINDOW, _RING = 7, 3  # side of a window, and patches around it that its queries see
_POOLED = (7, 5, 3, 1)  # pooled windows along a side that a window sees, by stage
_MOVES = tuple((row, column) for row in (-_RING, _RING) for column in (-_RING, _RING))
_OUTSIDE = -100.0  # added to the logits of pooled windows outside of the map


def partition(x: Tensor) -> Tensor:
    """Windows of a map, row by row: (B, H, W, C) -> (B, windows, 49, C)."""
    x = x.unflatten(2, (-1, _WINDOW)).unflatten(1, (-1, _WINDOW))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def ring(x: Tensor, outside: Tensor) -> Tensor:
    """The patches around each window, up to 3 away: (B, H, W, C) -> (B, windows, 132, C).

    Windows of the map moved by 3 along both axes, in four directions, contribute what lies outside
    of the window itself: 33 patches each. The 12 at the middle of the sides are seen by two of
    them and counted twice. At the edges the map wraps around.

    Args:
        x: the map, of whole windows.
        outside: of :func:`outside_patches`.
    """
    moved = (partition(x.roll(move, (1, 2))) for move in _MOVES)
    return torch.cat([each[:, :, own] for each, own in zip(moved, outside, strict=True)], 2)


def outside_patches() -> Tensor:
    """Which patches of the four moved windows lie outside of the window itself: (4, 33) int64."""
    patch = torch.arange(_WINDOW**2, device="cpu")  # on "meta", nothing is known to lie outside
    outside = []
    for moves in _MOVES:
        axes = zip(moves, (patch // _WINDOW, patch % _WINDOW), strict=True)
        row, column = ((at - move < 0) | (at - move >= _WINDOW) for move, at in axes)
        outside.append(patch[row | column])
    return torch.stack(outside)


def around(x: Tensor, size: int) -> Tensor:
    """The pooled windows around each: (B, rows, columns, C) -> (B, windows, size^2, C), 0 outside.

    Args:
        x: one vector per window.
        size: odd number of windows along a side.
    """
    found = F.unfold(x.permute(0, 3, 1, 2), size, padding=size // 2)
    return found.unflatten(1, (x.shape[3], size**2)).permute(0, 3, 2, 1)


class FocalAttention(nn.Module):
    """Windows that see themselves, a ring around them, and pooled windows: (B, H, W, C) -> same.

    Maps are padded with zeros to whole windows; at 224 pixels nothing is padded.

    Args:
        dim: channels C.
        num_heads: attention heads.
        pooled: windows along a side that a window sees pooled, itself in the middle.
        has_ring: whether the ring is seen; maps of a single window have none.
    """

    outside: Tensor
    own_index: Tensor
    pooled_index: Tensor

    def __init__(self, dim: int, num_heads: int, pooled: int, *, has_ring: bool) -> None:
        super().__init__()
        self.num_heads, self.pooled, self.has_ring = num_heads, pooled, has_ring
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.pool = nn.Linear(_WINDOW**2, 1)
        self.own_bias = nn.Parameter(torch.zeros(num_heads, (2 * _WINDOW - 1) ** 2))
        self.pooled_bias = nn.Parameter(torch.zeros(num_heads, (_WINDOW + pooled - 1) ** 2))
        if has_ring:
            outside = outside_patches()
            self.register_buffer("outside", outside, persistent=False)
            self.ring_bias = nn.Parameter(torch.zeros(num_heads, _WINDOW**2, outside.numel()))
        self.register_buffer("own_index", _offsets(_WINDOW), persistent=False)
        self.register_buffer("pooled_index", _offsets(pooled), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        height, width, dim = x.shape[1:]
        x = F.pad(x, (0, 0, 0, -width % _WINDOW, 0, -height % _WINDOW))
        rows, columns = x.shape[1] // _WINDOW, x.shape[2] // _WINDOW
        q, kv = self.qkv(x).split((dim, 2 * dim), -1)
        summary = self.pool(partition(x).transpose(2, 3)).squeeze(3).unflatten(1, (rows, columns))
        # The same layer makes the keys and values of pooled windows, and queries that none needs.
        parts = [partition(kv), around(self.qkv(summary)[..., dim:], self.pooled)]
        if self.has_ring:
            parts.insert(1, ring(kv, self.outside))
        k, v = map(self._heads, torch.cat(parts, 2).chunk(2, -1))
        q = self._heads(partition(q)) * (dim // self.num_heads) ** -0.5
        mixed = (q @ k.transpose(-2, -1) + self._bias(rows, columns)).softmax(-1) @ v
        mixed = mixed.transpose(2, 3).flatten(3).unflatten(2, (_WINDOW, _WINDOW))
        mixed = mixed.unflatten(1, (rows, columns)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        out: Tensor = self.proj(mixed[:, :height, :width])
        return out

    def _heads(self, x: Tensor) -> Tensor:
        """(B, windows, K, C) -> (B, windows, h, K, C / h)."""
        return x.unflatten(3, (self.num_heads, -1)).transpose(2, 3)

    def _bias(self, rows: int, columns: int) -> Tensor:
        """What is added to the logits: (windows, h, 49, K)."""
        map_ = self.pool.weight.new_ones(1, rows, columns, 1)
        outside = (1 - around(map_, self.pooled)[0]).transpose(1, 2) * _OUTSIDE
        pooled = self.pooled_bias[:, self.pooled_index] + outside[:, None]
        shared = [self.own_bias[:, self.own_index], *([self.ring_bias] if self.has_ring else [])]
        return torch.cat([*(each.expand(len(pooled), -1, -1, -1) for each in shared), pooled], -1)


def _offsets(size: int) -> Tensor:
    """Which bias a patch of a window has for a cell of a square of ``size``: (49, size^2)."""
    offset = torch.arange(_WINDOW)[:, None] - torch.arange(size) + size - 1
    both = offset[:, None, :, None] * (_WINDOW + size - 1) + offset[None, :, None, :]
    return both.flatten(2).flatten(0, 1)


class FocalBlock(nn.Module):
    """Pre-norm attention and feed-forward part: (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, num_heads: int, pooled: int, *, has_ring: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = FocalAttention(dim, num_heads, pooled, has_ring=has_ring)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class FocalTransformer(nn.Module):
    """Focal Transformer without convolutions in its embedding: (B, 3, H, W) -> (B, 1000).

    The last stage has no ring: at 224 pixels its map is a single window.

    Args:
        dim: channels of the first stage; each further one has twice as many.
        depths: blocks of each stage.
        num_heads: attention heads of each stage.
    """

    def __init__(self, dim: int, depths: Sequence[int], num_heads: Sequence[int]) -> None:
        super().__init__()
        self.embeds, self.norms, self.stages = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        channels, stride, last = 3, 4, len(depths) - 1
        for stage, (depth, heads, pooled) in enumerate(
            zip(depths, num_heads, _POOLED, strict=True)
        ):
            width = dim * 2**stage
            self.embeds.append(nn.Conv2d(channels, width, stride, stride))
            self.norms.append(nn.LayerNorm(width))
            blocks = (FocalBlock(width, heads, pooled, has_ring=stage < last) for _ in range(depth))
            self.stages.append(nn.Sequential(*blocks))
            channels, stride = width, 2
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1000)."""
        x = images
        for embed, norm, stage in zip(self.embeds, self.norms, self.stages, strict=True):
            x = stage(norm(embed(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        logits: Tensor = self.head(self.norm(x.permute(0, 2, 3, 1)).mean((1, 2)))
        return logits
