"""Evo-ViT's slow and fast tokens: against loops, and against full attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pacavit.attention import ATTENTIONS, SlowFastAttention
from pacavit.errors import RecipeError
from pacavit.models import PacaViT
from pacavit.types import Grid, StageState

GRID = Grid(3, 4)


def build(name: str = "slow_fast", block: int = 1, **options: Any) -> Any:
    torch.manual_seed(0)
    return ATTENTIONS.create(name, 8, 2, stage=0, block=block, options=options).double()


def weights(module: Any, queries: Tensor, keys: Tensor) -> Tensor:
    """softmax(q k^T / sqrt d) of one image: (n, C), (K, C) -> (h, n, K)."""
    q, k = (
        layer(tokens).view(-1, 2, 4).transpose(0, 1)
        for layer, tokens in ((module.q, queries), (module.k, keys))
    )
    return (q @ k.transpose(1, 2) / 2).softmax(2)


def attend(module: Any, queries: Tensor, keys: Tensor) -> Tensor:
    values = module.v(keys).view(-1, 2, 4).transpose(0, 1)
    return module.proj((weights(module, queries, keys) @ values).transpose(0, 1).flatten(1))


def test_keeping_all_is_full_attention() -> None:
    module, full = build(keep=1.0), build("full")
    full.load_state_dict(module.state_dict())
    x, state = torch.randn(2, 12, 8).double(), StageState(importance=torch.rand(2, 12).double())
    torch.testing.assert_close(module(x, GRID, state)[0], full(x, GRID, state)[0])


def test_the_first_blocks_of_a_stage_are_full_and_measure_importance() -> None:
    module, full = build(block=0), build("full")
    full.load_state_dict(module.state_dict())
    x = torch.randn(2, 12, 8).double()
    found, state = module(x, GRID, StageState())
    torch.testing.assert_close(found, full(x, GRID, StageState())[0])
    expected = torch.stack([weights(module, each.mean(0)[None], each).sum(0)[0] for each in x])
    torch.testing.assert_close(state.importance, expected)
    second = build(block=1, full_blocks=2)
    _, later = second(x, GRID, state)
    fresh = torch.stack([weights(second, each.mean(0)[None], each).sum(0)[0] for each in x])
    torch.testing.assert_close(later.importance, 0.5 * expected + 0.5 * fresh)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.75])
def test_slow_tokens_attend_and_the_others_receive_what_their_mean_does(keep: float) -> None:
    module, alpha = build(keep=keep, alpha=0.3), 0.3
    x, importance = torch.randn(2, 12, 8).double(), torch.rand(2, 12).double()
    importance[0, :5] = 0.5  # ties
    found, state = module(x, GRID, StageState(importance=importance))
    for image, a, tokens, after, kept in zip(
        x, importance, found, state.importance, state.kept, strict=True
    ):
        number = -int(-keep * 12 // 1)
        ranking = sorted(range(12), key=lambda patch: (-a[patch].item(), patch))
        slow, fast = sorted(ranking[:number]), sorted(ranking[number:])
        assert kept.nonzero()[:, 0].tolist() == slow
        representative = (a[fast, None] * image[fast]).sum(0) / a[fast].sum()
        path = torch.cat([image[slow], representative[None]])
        expected = attend(module, path, path)
        torch.testing.assert_close(tokens[slow], expected[:-1])
        torch.testing.assert_close(tokens[fast], expected[-1:].expand(len(fast), -1))
        seen = weights(module, image.mean(0)[None], path).sum(0)[0, :-1]
        torch.testing.assert_close(after[slow], (1 - alpha) * a[slow] + alpha * seen)
        torch.testing.assert_close(after[fast], a[fast])


def test_a_group_of_blocks_shares_its_selection() -> None:
    x = torch.randn(2, 12, 8).double()
    state = StageState(importance=torch.rand(2, 12).double())
    kept, random = [], torch.Generator().manual_seed(1)
    for block in range(1, 6):
        _, state = build(block=block, group_size=2)(x, GRID, state)
        kept.append(state.kept)
        # From here on other patches are the important ones.
        state = state._replace(importance=torch.rand(2, 12, generator=random).double())
    assert torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[1], kept[2])
    assert torch.equal(kept[2], kept[3])
    assert not torch.equal(kept[3], kept[4])


def test_padding_is_not_counted() -> None:
    module, x = build(), torch.randn(1, 6, 8).double()
    importance = torch.rand(1, 6).double()
    expected, after = module(x, Grid(2, 3), StageState(importance=importance))
    mask = torch.zeros(1, 3, 4, dtype=torch.bool)
    mask[:, :2, :3] = True
    canvas, high = torch.randn(1, 12, 8).double(), torch.full((1, 12), 9.0).double()
    canvas[mask.flatten(1)], high[mask.flatten(1)] = x[0], importance[0]
    found, state = module(canvas, GRID, StageState(importance=high), mask.flatten(1))
    torch.testing.assert_close(found[mask.flatten(1)], expected[0])
    torch.testing.assert_close(state.importance[mask.flatten(1)], after.importance[0])
    assert torch.equal(state.kept[mask.flatten(1)], after.kept[0])


def test_importance_that_vanishes_counts_as_equal() -> None:
    module, x = build(), torch.randn(1, 12, 8).double()
    importance = torch.zeros(1, 12).double()
    importance[0, :6] = 1
    found, _ = module(x, GRID, StageState(importance=importance))
    path = torch.cat([x[0, :6], x[0, 6:].mean(0)[None]])
    torch.testing.assert_close(found[0, 6], attend(module, path, path)[-1])


def test_importance_runs_through_a_stage_and_starts_anew_in_the_next() -> None:
    torch.manual_seed(0)
    model = PacaViT(
        embed_dims=(8, 8), depths=(3, 1), num_heads=(2, 2), num_classes=2, attention="slow_fast"
    ).eval()
    first, second = model.forward_stages(torch.randn(2, 3, 32, 32))
    assert first.state.kept is not None
    assert first.state.kept.sum(1).tolist() == [32, 32]
    assert second.state.kept is None
    assert second.state.importance is not None
    torch.testing.assert_close(second.state.importance.sum(1), torch.full((2,), 2.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0}, "keep must be above 0, not 0"),
        ({"keep": 1.5}, "keep must be at most 1, not 1.5"),
        ({"alpha": -1}, "alpha must be at least 0, not -1"),
        ({"alpha": 2}, "alpha must be at most 1, not 2"),
        ({"full_blocks": 0}, "full_blocks must be a whole number"),
        ({"group_size": 0}, "group_size must be a whole number"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        SlowFastAttention(8, 2, stage=0, block=0, **options)
