"""Reformer's attention: against loops over rounds and tokens, and against full attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.attention import ATTENTIONS
from pacavit.errors import RecipeError
from pacavit.types import Grid, StageState


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    return ATTENTIONS.create("lsh", 8, 2, stage=0, block=0, options=options).double()


def scores(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (B, h, N, N) and values (B, h, N, d), from the definition."""
    qk, v = (layer(x).view(*x.shape[:2], 2, 4).transpose(1, 2) for layer in (module.qk, module.v))
    return qk @ F.normalize(qk, dim=3).transpose(2, 3) / 2, v


def mix(module: Any, weights: Tensor, v: Tensor) -> Tensor:
    return module.proj((weights @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("num_patches", [2, 9, 35])
@pytest.mark.parametrize("rounds", [1, 3])
def test_one_chunk_is_full_attention_without_the_diagonal(num_patches: int, rounds: int) -> None:
    module = build(chunk_size=35, num_rounds=rounds)
    x = torch.randn(2, num_patches, 8).double()
    found, v = scores(module, x)
    own = torch.eye(num_patches, dtype=torch.bool)
    expected = mix(module, found.masked_fill(own, -torch.inf).softmax(3), v)
    torch.testing.assert_close(module(x, Grid(1, num_patches), StageState())[0], expected)


def test_a_token_sees_itself_if_there_is_nothing_else() -> None:
    module, x = build(), torch.randn(2, 1, 8).double()
    expected = module.proj(module.v(x))
    torch.testing.assert_close(module(x, Grid(1, 1), StageState())[0], expected)


def test_rounds_are_merged_as_in_the_paper() -> None:
    """Softmax by round, weighted by softmax(logsumexp), each pair divided among its rounds."""
    module, x = build(chunk_size=4, num_rounds=3), torch.randn(1, 22, 8).double()
    found, v = scores(module, x)
    expected = torch.zeros_like(v)
    for head in range(2):
        qk = module.qk(x)[0].view(22, 2, 4)[:, head]
        visible = []
        for rotation in module.rotations[:, head]:
            projected = qk @ rotation[:, :6]  # 22 tokens: 6 chunks, 12 buckets
            bucket = torch.cat([projected, -projected], 1).argmax(1).tolist()
            order = sorted(range(22), key=lambda token: (bucket[token], token))
            chunk = {token: place // 4 for place, token in enumerate(order)}
            visible.append(
                [
                    [key for key in range(22) if 0 <= chunk[query] - chunk[key] <= 1]
                    for query in range(22)
                ]
            )
        for query in range(22):
            outs, totals = [], []
            for seen in visible:
                logits = []
                for key in seen[query]:
                    times = sum(key in other[query] for other in visible)
                    score = found[0, head, query, key] if key != query else torch.tensor(-1e5)
                    logits.append(score - torch.tensor(float(times)).log())
                stacked = torch.stack(logits).double()
                outs.append(stacked.softmax(0) @ v[0, head, seen[query]])
                totals.append(stacked.logsumexp(0))
            expected[0, head, query] = torch.stack(totals).softmax(0) @ torch.stack(outs)
    expected = module.proj(expected.transpose(1, 2).flatten(2))
    torch.testing.assert_close(module(x, Grid(2, 11), StageState())[0], expected)


def test_similar_tokens_see_each_other() -> None:
    module = build(chunk_size=8, num_rounds=4)
    groups = torch.eye(8).double().repeat(8, 1) * 5  # 8 directions, scattered over 64 tokens
    x = (groups + 0.01 * torch.randn(64, 8).double())[None]
    _, _, record = module.recorded(x, Grid(8, 8), StageState())
    same = (torch.arange(64)[:, None] - torch.arange(64)) % 8 == 0
    seen = record.weights > 0
    assert seen[..., same & ~torch.eye(64, dtype=torch.bool)].float().mean() > 0.8
    assert seen[..., ~same].float().mean() < 0.7


def test_buckets_are_those_of_the_image_not_of_the_canvas() -> None:
    module, x = build(chunk_size=4), torch.randn(1, 20, 8).double()
    canvas, mask = torch.randn(1, 6, 7, 8).double(), torch.zeros(1, 6, 7, dtype=torch.bool)
    canvas[:, :4, :5], mask[:, :4, :5] = x.view(1, 4, 5, 8), True
    found, _ = module(canvas.flatten(1, 2), Grid(6, 7), StageState(), mask.flatten(1))
    expected, _ = module(x, Grid(4, 5), StageState())
    torch.testing.assert_close(found[:, mask[0].flatten()], expected)


def test_matrices_follow_from_the_seed_and_travel_with_the_weights() -> None:
    first, again, other = build(), build(), build(seed=1)
    assert torch.equal(first.rotations, again.rotations)
    assert not torch.equal(first.rotations, other.rotations)
    other.load_state_dict(first.state_dict())
    assert torch.equal(first.rotations, other.rotations)
    deeper: Any = ATTENTIONS.create("lsh", 8, 2, stage=0, block=1, options={})
    assert not torch.equal(first.rotations, deeper.rotations.double())
    x = torch.randn(2, 40, 8).double()
    for module in (first, again.eval()):
        found, _ = module(x, Grid(5, 8), StageState())
        torch.testing.assert_close(found, first(x, Grid(5, 8), StageState())[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_size": 0}, "chunk_size must be a whole number"),
        ({"num_rounds": 1.5}, "num_rounds must be a whole number"),
        ({"max_buckets": 3}, "max_buckets must be even, not 3"),
        ({"seed": -1}, "seed must be a whole number"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(**options)


def test_heads_must_divide_the_channels() -> None:
    with pytest.raises(RecipeError, match="num_heads 3 does not divide the 8 channels of stage 1"):
        ATTENTIONS.create("lsh", 8, 3, stage=1, block=0, options={})
