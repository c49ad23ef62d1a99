"""Multiply-accumulates."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

import pacavit.models  # noqa: F401 - registers the models
from pacavit.attention import ATTENTIONS, FullAttention
from pacavit.models import PacaViT, count_macs
from pacavit.types import Grid, StageState


def test_macs_are_those_of_convolutions_and_products() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 10))
    assert count_macs(network, (4, 4)) == 8 * 3 * 9 * 16 + 8 * 16 * 10


class Attends(nn.Module):
    """Full attention among the pixels of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = FullAttention(3, 1, stage=0, block=0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grid = Grid(x.shape[2], x.shape[3])
        return self.attention(x.flatten(2).transpose(1, 2), grid, StageState())[0]


def test_both_products_of_attention_count() -> None:
    assert count_macs(Attends(), (4, 5)) == 4 * 20 * 3 * 3 + 2 * 20 * 20 * 3


def test_macs_leave_the_mode_alone() -> None:
    model: Any = timm.create_model("pacavit_nano").train()
    assert count_macs(model, (32, 32)) > 1e6
    assert model.training
    frozen = model.stages[0].embed.eval()
    count_macs(model, (32, 32))
    assert model.training
    assert not frozen.training


def test_images_may_have_other_channels() -> None:
    gray: Any = timm.create_model("pacavit_nano", in_chans=1)
    assert count_macs(gray, (32, 32), in_chans=1) < count_macs(
        timm.create_model("pacavit_nano"), (32, 32)
    )


@pytest.mark.parametrize(
    "settings",
    [
        *({"attention": name} for name in ATTENTIONS.names() if name != "paca"),
        *({"num_clusters": 4, "clustering": name} for name in ("conv", "super_tokens")),
    ],
)
def test_macs_can_be_counted_without_memory(settings: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"embed_dims": (8,), "depths": (2,), "num_heads": (2,), **settings}
    expected = count_macs(PacaViT(**arguments), (40, 48))
    with torch.device("meta"):
        assert count_macs(PacaViT(**arguments), (40, 48)) == expected
