"""Attention to a window, a few global blocks and a few random blocks (BigBird)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.attention.base import ATTENTIONS
from pacavit.attention.heads import merge_heads, split_heads
from pacavit.attention.options import check_count
from pacavit.attention.qkv import QkvAttention
from pacavit.clustering.functional._points import check_seed
from pacavit.errors import RecipeError
from pacavit.types import AttentionRecord, Grid, StageState
from pacavit.utils.exporting import remainder

__all__ = ["BigBirdAttention"]


@ATTENTIONS.register("big_bird")
class BigBirdAttention(QkvAttention):
    """Attention to window, global and random tiles, O(N (5 + r) b): (B, N, C) -> (B, N, C).

    Zaheer et al., "Big Bird: Transformers for Longer Sequences", NeurIPS 2020, arXiv:2007.14062,
    with blocks that are square tiles of b = ``tile_size`` squared patches, in serpentine order, so
    that consecutive tiles touch. softmax(Q K^T / sqrt d) V over the keys of the ``window`` tiles
    around a patch's own, of ``num_global`` tiles, evenly spaced from the first to the last, and of
    r = ``num_random`` others, fixed by ``seed``; patches of global tiles attend to all. A tile that
    is chosen twice counts once. With no more tiles than window + global + random, attention is
    full; this is decided for each input, so late stages of a pyramid usually are.

    Gathering costs time: with few patches, full attention is as fast.

    Args:
        dim: channels C.
        num_heads: heads h; must divide C.
        stage: index of the stage.
        block: index of the block in the stage.
        tile_size: side of a tile in patches.
        window: number of tiles in the window, odd.
        num_global: number of global tiles.
        num_random: r, number of random tiles of each tile; different in each block.
        seed: of the random tiles.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        stage: int,
        block: int,
        tile_size: int = 4,
        window: int = 3,
        num_global: int = 2,
        num_random: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__(dim, num_heads, stage=stage, block=block)
        check_count("tile_size", tile_size)
        check_count("window", window)
        if window % 2 == 0:
            raise RecipeError(f"window must be odd, not {window}")
        check_count("num_global", num_global, least=0)
        check_count("num_random", num_random, least=0)
        check_seed("seed", seed)
        self.tile_size = tile_size
        self.window = window
        self.num_global = num_global
        self.num_random = num_random
        self.seed = seed + 1000 * stage + block

    def input_layers(self) -> Sequence[nn.Linear]:
        """The projections."""
        return (self.q, self.k, self.v)

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        """(B, N, C) -> (B, N, C); the state is unchanged."""
        height, width = self._num_tiles(grid)
        if not torch.compiler.is_exporting() and height * width <= self.num_keys:
            return self.attend(x, x, patch_mask), state
        slots = self._slots(grid, x.device)
        q, k, v = (
            F.pad(split_heads(layer(x), self.num_heads), (0, 0, 0, 1))[:, :, slots]
            for layer in (self.q, self.k, self.v)
        )
        valid = x.new_ones(x.shape[:2], dtype=torch.bool) if patch_mask is None else patch_mask
        valid = F.pad(valid, (0, 1))[:, None, slots]
        index, used = self._links(height * width, x.device)
        keys, values = (each[:, :, index].flatten(3, 4).flatten(0, 1) for each in (k, v))
        mask = (valid[:, :, index] & used[..., None]).flatten(3)[..., None, :]
        mask = mask.expand(-1, self.num_heads, -1, -1, -1).flatten(0, 1)
        bias = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, _lowest(q))
        mixed = F.scaled_dot_product_attention(q.flatten(0, 1), keys, values, attn_mask=bias)
        mixed = mixed.unflatten(0, (-1, self.num_heads))
        if self.num_global:
            chosen = self._global_tiles(height * width, x.device)
            everywhere = F.scaled_dot_product_attention(
                q[:, :, chosen].flatten(2, 3),
                k.flatten(2, 3),
                v.flatten(2, 3),
                attn_mask=valid.flatten(2)[:, :, None],
            )
            everywhere = everywhere.unflatten(2, (-1, self.tile_size**2))
            mixed = mixed.index_copy(2, chosen, everywhere)
        tile, slot = self._places(grid, x.device)
        return self.proj(merge_heads(mixed[:, :, tile, slot])), state

    def recorded(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState, AttentionRecord]:
        """:meth:`forward` by the matrix of all pairs, quadratic in N."""
        q, k, v = (split_heads(layer(x), self.num_heads) for layer in (self.q, self.k, self.v))
        scores = q @ k.transpose(2, 3) * q.shape[3] ** -0.5
        seen = self.linked_patches(grid, x.device)
        if patch_mask is not None:
            seen = seen & patch_mask[:, None, None]
        weights = scores.masked_fill(~seen, _lowest(scores)).softmax(3)
        return self.proj(merge_heads(weights @ v)), state, AttentionRecord(weights)

    @property
    def num_keys(self) -> int:
        """Number of tiles in the list of each tile; no more tiles than this: full attention."""
        return self.window + self.num_global + self.num_random

    def linked_patches(self, grid: Grid, device: torch.device) -> Tensor:
        """Which patches attend to which: (N, N) bool, queries first."""
        height, width = self._num_tiles(grid)
        index, used = self._links(height * width, device)
        links = torch.zeros(len(index), len(index), dtype=torch.int64, device=device)
        linked = links.scatter_add_(1, index, used.long()) > 0
        linked[self._global_tiles(height * width, device)] = True
        tile, _ = self._places(grid, device)
        return linked[tile[:, None], tile]

    def _num_tiles(self, grid: Grid) -> tuple[int, int]:
        """Height and width of the grid of tiles."""
        height, width = ((side + self.tile_size - 1) // self.tile_size for side in grid)
        return height, width

    def _links(self, total: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The tiles that each tile attends to, and which of them count: both (total + 1, K).

        Args:
            total: number of tiles; there is an empty one more, see :meth:`_slots`.
            device: of the result.
        """
        own = torch.arange(total + 1, device=device)[:, None]
        half = self.window // 2
        near = own + torch.arange(-half, half + 1, device=device)
        inside = (near >= 0) & (near < total)
        index = torch.cat(
            [
                near.clamp(0, total - 1),
                self._global_tiles(total, device).expand(total + 1, -1),
                self._random_tiles(total, device),
            ],
            1,
        )
        number = torch.arange(self.num_keys, device=device)
        earlier = number < number[:, None]
        used = ~((index[:, :, None] == index[:, None]) & earlier).any(2)
        used[:, : self.window] = inside
        # A tensor instead of a number, so that a traced program decides anew for every grid.
        full = torch.scalar_tensor(total, device=device) <= self.num_keys
        index = torch.where(full, number.clamp(max=total - 1), index)
        # Without torch.where, which ONNX Runtime has not for bools.
        return index, (full & (number < total)) | (~full & used)

    def _global_tiles(self, total: int, device: torch.device) -> Tensor:
        """The numbers of the global tiles: (num_global,)."""
        number = torch.arange(self.num_global, device=device)
        return number * (total - 1) // max(self.num_global - 1, 1)

    def _random_tiles(self, total: int, device: torch.device) -> Tensor:
        """Tiles outside of each tile's window, one from each of r equal parts: (total + 1, r)."""
        part = torch.arange(self.num_random, device=device)
        own = torch.arange(total + 1, device=device)[:, None]
        outside = torch.scalar_tensor(total - self.window, dtype=torch.int64, device=device)
        outside = outside.clamp(min=1)
        # A hash, so that the tiles are those of any run and device.
        mixed = ((own * self.num_random + part + 1) * 0x9E3779B1 + self.seed) % 0xFFFFFFFB
        mixed = (mixed ^ (mixed >> 15)) * 0x45D9F3B % 0xFFFFFFFB
        step = (part * outside + mixed % outside) // max(self.num_random, 1)
        return remainder(own + self.window // 2 + 1 + step, total)

    def _slots(self, grid: Grid, device: torch.device) -> Tensor:
        """The patches of each tile: (total + 1, b) int64, N where a tile extends over the border.

        The last tile is empty: without it, a traced program would depend on whether there is more
        than one.
        """
        height, width = self._num_tiles(grid)
        tile = torch.arange(height * width + 1, device=device)[:, None]
        slot = torch.arange(self.tile_size**2, device=device)
        row, column = tile // width, _serpentine(tile // width, remainder(tile, width), width)
        row = row * self.tile_size + slot // self.tile_size
        column = column * self.tile_size + slot % self.tile_size
        inside = (row < grid.height) & (column < grid.width)
        return torch.where(inside, row * grid.width + column, grid.num_patches)

    def _places(self, grid: Grid, device: torch.device) -> tuple[Tensor, Tensor]:
        """The tile of each patch, and its slot there: (N,) int64 each."""
        side, (_, width) = self.tile_size, self._num_tiles(grid)
        patch = torch.arange(grid.num_patches, device=device)
        row, column = patch // grid.width, remainder(patch, grid.width)
        tile = row // side * width + _serpentine(row // side, column // side, width)
        return tile, row % side * side + column % side


def _serpentine(row: Tensor, column: Tensor, width: int) -> Tensor:
    """Columns counted from the left in even rows, and from the right in odd ones."""
    return torch.where(row % 2 == 1, width - 1 - column, column)


def _lowest(scores: Tensor) -> float:
    """For keys that are not attended to; finite, so that a row of nothing else is not NaN."""
    return torch.finfo(scores.dtype).min / 2
