"""BigBird: gathered tiles against a masked matrix of all pairs, and against full attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pacavit.attention import ATTENTIONS, BigBirdAttention
from pacavit.errors import RecipeError
from pacavit.types import Grid, StageState


def build(name: str = "big_bird", block: int = 0, **options: Any) -> Any:
    torch.manual_seed(0)
    return ATTENTIONS.create(name, 8, 2, stage=0, block=block, options=options).double()


def masked(module: Any, x: Tensor, seen: Tensor) -> Tensor:
    """Softmax attention where (N, N) ``seen`` allows it."""
    q, k, v = (
        layer(x).view(*x.shape[:2], 2, 4).transpose(1, 2)
        for layer in (module.q, module.k, module.v)
    )
    weights = (q @ k.transpose(2, 3) / 2).masked_fill(~seen, -torch.inf).softmax(3)
    return module.proj((weights @ v).transpose(1, 2).flatten(2))


def tile_of_patch(grid: Grid, side: int) -> list[int]:
    """The number of each patch's tile, in serpentine order."""
    width = -(-grid.width // side)
    numbers = []
    for row in range(grid.height):
        for column in range(grid.width):
            down, right = row // side, column // side
            numbers.append(down * width + (width - 1 - right if down % 2 else right))
    return numbers


@pytest.mark.parametrize("grid", [Grid(9, 13), Grid(12, 12), Grid(1, 40)])
@pytest.mark.parametrize(("num_global", "num_random"), [(2, 3), (0, 2), (1, 0), (0, 0), (3, 1)])
def test_gathered_tiles_equal_the_masked_matrix(
    grid: Grid, num_global: int, num_random: int
) -> None:
    module = build(tile_size=2, num_global=num_global, num_random=num_random)
    x = torch.randn(2, grid.num_patches, 8).double()
    tile = torch.tensor(tile_of_patch(grid, 2))
    total = int(tile.max()) + 1
    window = (tile[:, None] - tile).abs() <= 1
    chosen = torch.arange(num_global) * (total - 1) // max(num_global - 1, 1)
    is_global = torch.isin(tile, chosen)
    linked = module.linked_patches(grid, x.device)
    required = window | is_global | is_global[:, None]
    assert linked[required].all()
    by_tile = torch.zeros(total, total, dtype=torch.bool)
    by_tile[tile[:, None].expand_as(linked), tile.expand_as(linked)] = linked & ~required
    rows = by_tile.sum(1)[[number not in chosen for number in range(total)]]
    assert rows.max() <= num_random
    # Random tiles that are global anyway count once.
    assert rows.float().mean() >= num_random * (1 - (num_global + 2) / total)
    torch.testing.assert_close(module(x, grid, StageState())[0], masked(module, x, linked))


@pytest.mark.parametrize("grid", [Grid(7, 9), Grid(1, 1), Grid(1, 7), Grid(5, 9)])
def test_a_window_of_all_tiles_is_full_attention(grid: Grid) -> None:
    module = build(tile_size=2, window=41, num_global=0, num_random=0)
    full = build("full")
    full.load_state_dict(module.state_dict())
    x = torch.randn(2, grid.num_patches, 8).double()
    torch.testing.assert_close(module(x, grid, StageState())[0], full(x, grid, StageState())[0])


def test_whether_attention_is_full_is_decided_for_each_input() -> None:
    module = build(tile_size=2, window=1, num_global=1, num_random=1)
    small, large = Grid(2, 6), Grid(8, 8)
    for grid, full in ((small, True), (large, False), (small, True)):
        assert module.linked_patches(grid, torch.device("cpu")).all() == full
        x = torch.randn(1, grid.num_patches, 8).double()
        linked = module.linked_patches(grid, x.device)
        torch.testing.assert_close(module(x, grid, StageState())[0], masked(module, x, linked))


def test_random_tiles_follow_from_seed_and_block() -> None:
    grid, device = Grid(20, 20), torch.device("cpu")

    def linked(block: int = 0, **options: Any) -> Tensor:
        return build(block=block, tile_size=2, **options).linked_patches(grid, device)

    torch.manual_seed(5)
    assert torch.equal(linked(), linked())
    assert not torch.equal(linked(), linked(seed=1))
    assert not torch.equal(linked(), linked(block=1))


def test_training_and_evaluation_agree() -> None:
    module, x, grid = build(tile_size=2), torch.randn(1, 100, 8).double(), Grid(10, 10)
    trained, _ = module.train()(x, grid, StageState())
    torch.testing.assert_close(module.eval()(x, grid, StageState())[0], trained, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile_size": 0}, "tile_size must be a whole number"),
        ({"window": 2}, "window must be odd, not 2"),
        ({"window": 0}, "window must be a whole number"),
        ({"num_global": -1}, "num_global must be a whole number"),
        ({"num_random": 0.5}, "num_random must be a whole number"),
        ({"seed": -1}, "seed must be a whole number"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        BigBirdAttention(8, 2, stage=0, block=0, **options)
