"""Attention to a window, a few global blocks and a few random blocks (BigBird)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.attention.base import ATTENTIONS
from pacavit.attention.qkv import QkvAttention, merge_heads, split_heads
from pacavit.clustering.functional._points import check_count, check_seed
from pacavit.errors import RecipeError
from pacavit.types import AttentionRecord, Grid, StageState

__all__ = ["BigBirdAttention"]


@ATTENTIONS.register("big_bird")
class BigBirdAttention(QkvAttention):
    """Attention to window, global and random tiles, O(N (5 + r) b): (B, N, C) -> (B, N, C).

    Zaheer et al., "Big Bird: Transformers for Longer Sequences", NeurIPS 2020, arXiv:2007.14062,
    with blocks that are square tiles of b = ``tile_size`` squared patches, counted to and fro along
    the rows of tiles, so that consecutive tiles touch. softmax(Q K^T / sqrt d) V over the keys of
    the ``window`` tiles around a patch's own, of ``num_global`` tiles, evenly spaced from the first
    to the last, and of ``num_random`` others, fixed by ``seed``; patches of global tiles attend to
    all. A tile that is chosen twice counts once. With no more tiles than window + global + random,
    attention is full; this is decided for each input, so late stages of a pyramid usually are.

    Below some thousand patches it is hardly faster than full attention, which needs no gathering.

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
        for name, value in (("num_global", num_global), ("num_random", num_random)):
            if value:
                check_count(name, value)
        check_seed("seed", seed)
        self.tile_size = tile_size
        self.window = window
        self.num_global = num_global
        self.num_random = num_random
        self.seed = seed + 1000 * stage + block

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        """(B, N, C) -> (B, N, C); the state is unchanged."""
        height, width = (-(-side // self.tile_size) for side in grid)
        if not torch.compiler.is_exporting() and height * width <= self.num_keys:
            return self.attend(x, x, patch_mask), state
        order = _tile_order(height, width, x.device)
        q, k, v = (
            self._tiles(split_heads(layer(x), self.num_heads), grid)[:, :, order]
            for layer in (self.q, self.k, self.v)
        )
        valid = x.new_ones(x.shape[:2], dtype=torch.bool) if patch_mask is None else patch_mask
        valid = self._tiles(valid[:, None, :, None], grid)[:, :, order, :, 0]
        index, used = self._links(height, width, x.device)
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
        return self.proj(merge_heads(self._patches(mixed[:, :, order.argsort()], grid))), state

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
        height, width = (-(-side // self.tile_size) for side in grid)
        rows, columns = (torch.arange(side, device=device) // self.tile_size for side in grid)
        tile = (rows[:, None] * width + columns).flatten()
        tile = _tile_order(height, width, device).argsort()[tile]
        index, used = self._links(height, width, device)
        links = torch.zeros(height * width, height * width, dtype=torch.int64, device=device)
        linked = links.scatter_add_(1, index, used.long()) > 0
        if self.num_global:
            linked[self._global_tiles(height * width, device)] = True
        return linked[tile[:, None], tile]

    def _links(self, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The list of tiles (T, K) that each tile attends to, and which entries count (T, K).

        Args:
            height: of the grid of tiles.
            width: of the grid of tiles.
            device: of the result.
        """
        total = height * width
        own = torch.arange(total, device=device)[:, None]
        half = self.window // 2
        near = own + torch.arange(-half, half + 1, device=device)
        inside = (near >= 0) & (near < total)
        index = torch.cat(
            [
                near.clamp(0, total - 1),
                self._global_tiles(total, device).expand(total, -1),
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
        return index, torch.where(full, number < total, used)

    def _global_tiles(self, total: int, device: torch.device) -> Tensor:
        """The numbers of the global tiles: (num_global,)."""
        number = torch.arange(self.num_global, device=device)
        return number * (total - 1) // max(self.num_global - 1, 1)

    def _random_tiles(self, total: int, device: torch.device) -> Tensor:
        """Tiles outside of each tile's window, one from each of r equal parts: (T, r)."""
        part = torch.arange(self.num_random, device=device)
        own = torch.arange(total, device=device)[:, None]
        outside = torch.scalar_tensor(total - self.window, dtype=torch.int64, device=device)
        outside = outside.clamp(min=1)
        # A hash, so that the tiles are those of any run and device.
        mixed = ((own * self.num_random + part + 1) * 0x9E3779B1 + self.seed) % 0xFFFFFFFB
        mixed = (mixed ^ (mixed >> 15)) * 0x45D9F3B % 0xFFFFFFFB
        step = (part * outside + mixed % outside) // max(self.num_random, 1)
        return (own + self.window // 2 + 1 + step) % total

    def _tiles(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, h, N, d) -> (B, h, T, b, d), with zeros below and to the right."""
        side = self.tile_size
        x = F.pad(x.unflatten(2, grid), (0, 0, 0, -grid.width % side, 0, -grid.height % side))
        x = x.unflatten(3, (-1, side)).unflatten(2, (-1, side))
        return x.transpose(3, 4).flatten(4, 5).flatten(2, 3)

    def _patches(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, h, T, b, d) -> (B, h, N, d), without what was added."""
        side = self.tile_size
        x = x.unflatten(2, (-1, -(-grid.width // side))).unflatten(4, (side, side))
        x = x.transpose(3, 4).flatten(4, 5).flatten(2, 3)
        return x[:, :, : grid.height, : grid.width].flatten(2, 3)


def _tile_order(height: int, width: int, device: torch.device) -> Tensor:
    """The tiles of a grid, numbered by rows, in an order to and fro along the rows: (T,)."""
    number = torch.arange(height * width, device=device).view(height, width)
    odd = torch.arange(height, device=device)[:, None] % 2 == 1
    return torch.where(odd, number.flip(1), number).flatten()


def _lowest(scores: Tensor) -> float:
    """For keys that are not attended to; finite, so that a row of nothing else is not NaN."""
    return torch.finfo(scores.dtype).min / 2
