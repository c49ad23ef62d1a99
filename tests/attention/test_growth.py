"""Multiply-accumulates over N grow as the docs say; with enough patches, below full attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pacavit.attention import ATTENTIONS
from pacavit.models.macs import count_macs
from pacavit.types import Grid, StageState


class Mixer(nn.Module):
    """An attention of a block in the middle of a stage, on a map of its channels."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        super().__init__()
        self.attention = ATTENTIONS.create(name, 16, 2, stage=0, block=2, options=options)

    def forward(self, x: Tensor) -> Tensor:
        grid = Grid(*x.shape[2:])
        tokens = x.flatten(2).transpose(1, 2)
        state = StageState(importance=torch.ones_like(tokens[..., 0]))
        return self.attention(tokens, grid, state)[0]


def mixing_macs(name: str, side: int, **options: Any) -> int:
    """Without the linear layers, which are the same for every N."""
    module = Mixer(name, options)
    macs = count_macs(module, (side, side), in_chans=16)
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return macs - side**2 * sum(layer.weight.numel() for layer in layers)


@pytest.mark.parametrize("name", ["lsh", "agent", "context_cluster"])
def test_four_times_the_patches_cost_four_times_as_much(name: str) -> None:
    small, large = mixing_macs(name, 32), mixing_macs(name, 64)
    assert large / small == pytest.approx(4, rel=0.02)
    assert large < mixing_macs("full", 64) / 4


def test_big_bird_grows_with_the_number_of_tiles() -> None:
    """Window and random tiles cost the same for each patch; two global tiles of 16 see all."""
    for side in (32, 64):
        patches, tiles = side**2, side**2 // 16 + 1  # and an empty one
        expected = 2 * 16 * (tiles * 16 * 8 * 16 + 2 * 16 * tiles * 16)
        assert mixing_macs("big_bird", side) == expected
        assert expected < 2 * 16 * patches**2


@pytest.mark.parametrize("keep", [0.25, 0.5])
def test_slow_tokens_cost_their_square(keep: float) -> None:
    for side in (32, 64):
        slow = int(keep * side**2) + 1
        module = Mixer("slow_fast", {"keep": keep})
        macs = count_macs(module, (side, side), in_chans=16)
        pairs = 2 * 16 * slow**2
        # Projections of the slow path, the query of the mean, its scores, and the representative.
        rest = 4 * 256 * slow + 256 + 16 * slow + 16 * side**2
        assert macs == pairs + rest
