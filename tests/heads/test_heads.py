"""Segmentation heads: the published sizes and costs, and equality with a plain computation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pacavit.errors import RecipeError
from pacavit.heads import HEADS, PacaHead, UperNetHead
from pacavit.heads.layers import Norm
from pacavit.models import build_pyramid
from pacavit.tasks.segmentation import Segmenter

CLASSES = 150
DOWNSTREAM = (200, 200, 200, 0)
# Parameters with 150 classes, of the paper's layout.
TOTALS = [
    ("pacavit_tiny", {}, "paca", {}, 13_326_764),
    ("pacavit_small", {}, "paca", {}, 23_163_788),
    ("pacavit_base", {}, "paca", {}, 47_964_940),
    ("pacavit_tiny", {}, "upernet", {}, 41_561_516),
    ("pacavit_small", {}, "upernet", {}, 51_398_540),
    ("pacavit_base", {}, "upernet", {}, 77_182_732),
    ("pacavit_tiny", {}, "upernet", {"auxiliary": False}, 40_785_174),
    ("pacavit_small", {}, "upernet", {"auxiliary": False}, 50_622_198),
    ("pacavit_base", {}, "upernet", {"auxiliary": False}, 76_258_934),
    ("pacavit_small", {"clustering": "mlp"}, "paca", {}, 23_946_052),
    ("pacavit_convmixer_small_100", {"num_clusters": 200}, "paca", {}, 22_239_948),
]


@pytest.mark.parametrize(("name", "settings", "head", "options", "total"), TOTALS)
def test_parameters_are_those_of_the_paper(
    name: str, settings: dict[str, Any], head: str, options: dict[str, Any], total: int
) -> None:
    with torch.device("meta"):
        backbone = build_pyramid(name, **({"num_clusters": DOWNSTREAM} | settings))
        built = HEADS.create(head, backbone.channels, backbone.strides, CLASSES, options=options)
        network = Segmenter(backbone, built)
    assert sum(parameter.numel() for parameter in network.parameters()) == total


CHANNELS = (96, 192, 320, 384)
STRIDES = (4, 8, 16, 32)


def macs(head: nn.Module, maps: Sequence[Tensor]) -> float:
    """In thousands of millions."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        head.eval()(maps)
    return counter.get_total_flops() / 2e9


def maps_on_meta(size: int = 512) -> list[Tensor]:
    sides = [size // stride for stride in STRIDES]
    return [
        torch.zeros(1, number, side, side, device="meta")
        for number, side in zip(CHANNELS, sides, strict=True)
    ]


class PlainPaca(nn.Module):
    """The published head in its published order, on the layers of a head of ours."""

    def __init__(self, head: PacaHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        head, size = self.head, maps[0].shape[2:]
        columns = []
        for lateral, each in zip(head.laterals, maps, strict=True):
            x = lateral(each)
            columns.append(F.interpolate(x, size=size, mode="bilinear", align_corners=False))
        x = torch.cat(columns, 1)
        queries = self.layer(head.to_queries, x)
        logits = head.to_clusters(self.layer(head.clustering, x))
        weights = logits.flatten(2).softmax(2)
        clusters = torch.einsum("bkn,bcn->bkc", weights, x.flatten(2))
        keys, values = (
            F.relu(layer.norm(layer.linear(clusters).transpose(1, 2)).transpose(1, 2))
            for layer in (head.to_keys, head.to_values)
        )
        attention = (queries.flatten(2).transpose(1, 2) @ keys.transpose(1, 2)).softmax(2)
        mixed = (attention @ values).transpose(1, 2).unflatten(2, size)
        return head.classifier(self.layer(head.proj, mixed)), logits, weights, attention

    @staticmethod
    def layer(layer: Any, x: Tensor) -> Tensor:
        return F.relu(layer.norm(layer.conv(x)))


def test_multiply_adds_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        paca = PacaHead(CHANNELS, STRIDES, CLASSES)
        upernet = UperNetHead(CHANNELS, STRIDES, CLASSES)
    maps = maps_on_meta()
    assert macs(upernet, maps) == pytest.approx(210.9, rel=0.02)
    assert macs(PlainPaca(paca), maps) == pytest.approx(15.5, rel=0.02)
    assert macs(paca, maps) < 15.5 / 2  # the same function in another order


def random_maps(sizes: Sequence[tuple[int, int]], channels: Sequence[int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, number, *size, generator=generator, dtype=torch.float64, requires_grad=True)
        for number, size in zip(channels, sizes, strict=True)
    ]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize(
    "sizes", [[(9, 13), (5, 7), (3, 4), (2, 2)], [(6, 8), (3, 4)], [(5, 4)], [(4, 4), (4, 4)]]
)
def test_the_paca_head_is_a_plain_computation(
    training: bool, norm: str, sizes: list[tuple[int, int]]
) -> None:
    torch.manual_seed(0)
    channels = (6, 8, 10, 12)[: len(sizes)]
    head = PacaHead(channels, STRIDES[: len(sizes)], 5, channels=16, dropout=0.0, norm=norm)
    head = head.double().train(training)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)
    maps = random_maps(sizes, channels)
    output, record = head(maps), head.attention(maps)
    logits, clusters, weights, attention = PlainPaca(head)(maps)
    close: Any = torch.testing.assert_close
    close(output.logits, logits)
    close(output.supervised["clusters"], clusters)
    close(record.cluster_logits, clusters)
    close(record.pixel_weights, weights)
    close(record.attention, attention)
    gradients = [
        torch.autograd.grad(each.square().sum(), [*maps, *head.parameters()])
        for each in (output.logits, logits)
    ]
    for ours, plain in zip(*gradients, strict=True):
        close(ours, plain)


class PlainUperNet(nn.Module):
    """The layout of mmsegmentation, on the layers of a head of ours."""

    def __init__(self, head: UperNetHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        head, last = self.head, maps[-1]
        pooled = [
            resized(layer(F.adaptive_avg_pool2d(last, bins)), last)
            for layer, bins in zip(head.pooled, (1, 2, 3, 6), strict=True)
        ]
        laterals = [layer(each) for layer, each in zip(head.laterals, maps[:-1], strict=True)]
        laterals.append(head.context(torch.cat([last, *pooled], 1)))
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + resized(laterals[i], laterals[i - 1])
        smooth: Any = head.smooth
        outputs = [smooth[i](laterals[i]) for i in range(len(laterals) - 1)] + [laterals[-1]]
        return head.classifier(head.fuse(torch.cat([resized(x, maps[0]) for x in outputs], 1)))


def resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


@pytest.mark.parametrize("sizes", [[(9, 13), (5, 7), (3, 4), (2, 2)], [(6, 8), (3, 4)]])
def test_upernet_is_a_plain_computation(sizes: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    channels = (6, 8, 10, 12)[: len(sizes)]
    head = UperNetHead(channels, STRIDES[: len(sizes)], 5, channels=16, dropout=0.0).double()
    maps = random_maps(sizes, channels)
    torch.testing.assert_close(head(maps).logits, PlainUperNet(head)(maps))
    auxiliary = head(maps).supervised["auxiliary"]
    assert auxiliary.shape == (2, 5, *sizes[-2]), "of the last map but one"
    assert head.eval()(maps).supervised == {}
    assert (
        UperNetHead(channels, STRIDES[: len(sizes)], 5, auxiliary=False)(
            [each.float() for each in maps]
        ).supervised
        == {}
    )


@pytest.mark.parametrize("name", HEADS.names())
def test_dropout_drops_whole_channels(name: str) -> None:
    torch.manual_seed(0)
    head: Any = HEADS.create(name, (6,) * 2, (4, 8), 5, options={"channels": 16, "dropout": 0.5})
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 5.0)  # no ReLU makes a whole channel 0
    seen: list[Tensor] = []
    head.classifier.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    maps = [torch.rand(2, 6, 8, 8), torch.rand(2, 6, 4, 4)]
    head(maps)
    head.drop.eval()
    head(maps)
    dropped = (seen[0] == 0).flatten(2).all(2).float().mean().item()
    assert 0.2 < dropped < 0.8
    assert not (seen[1] == 0).flatten(2).all(2).any()


@pytest.mark.parametrize(
    ("channels", "groups"), [(2, 1), (7, 1), (16, 2), (31, 1), (48, 6), (100, 10), (256, 32)]
)
def test_groups_divide_the_channels(channels: int, groups: int) -> None:
    norm = Norm("group").layer(channels)
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == groups
    assert norm(torch.randn(1, channels, 1, 1)).isfinite().all()


def test_group_norm_trains_on_one_image() -> None:
    maps = [torch.rand(1, 6, 8, 8), torch.rand(1, 6, 4, 4)]
    for name in HEADS:
        options = {"channels": 16, "norm": "group"}
        head: Any = HEADS.create(name, (6, 6), (4, 8), 5, options=options)
        head(maps).logits.square().sum().backward()
        assert all(parameter.grad is not None for parameter in head.classifier.parameters())


@pytest.mark.parametrize(
    ("name", "strides", "options", "message"),
    [
        ("upernet", (8,), {}, "needs at least 2 maps and gets 1"),
        ("paca", (), {}, "needs at least 1 maps and gets 0"),
        ("paca", (16, 8), {}, r"from fine to coarse, and gets strides \(16, 8\)"),
        ("paca", (8, 16), {"norm": "layer"}, "'batch' or 'group', not 'layer'"),
        ("upernet", (8, 16), {"channels": 0}, "channels of head 'upernet' must be 1 or more"),
        ("upernet", (8, 16), {"pool_sizes": [0]}, "pool_sizes .* must be 1 or more"),
        ("paca", (8, 16), {"dropout": 1.5}, "dropout .* between 0 and 1, not 1.5"),
    ],
)
def test_heads_refuse_in_one_line(
    name: str, strides: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        HEADS.create(name, (6,) * len(strides), strides, 5, options=options)
    assert "\n" not in str(caught.value)
