"""T2T-ViT and Focal Transformer: sizes as published, and their parts by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pacavit.bench.peers import HUGGING_FACE, PEERS
from pacavit.bench.peers.focal import FocalAttention, around, outside_patches, partition, ring
from pacavit.bench.peers.t2t import T2tVit, TokenTransformer, sinusoids
from pacavit.models import count_macs

# Millions of parameters, billions of multiply-accumulates.
COUNTS = {
    "t2t_vit_t_14": (21.47, 6.09),
    "t2t_vit_t_19": (39.08, 9.78),
    "t2t_vit_t_24": (64.00, 14.97),
    "focal_tiny": (28.88, 4.95),
    "focal_small": (51.14, 9.48),
    "focal_base": (89.82, 16.44),
    "pvt_tiny": (13.23, 1.93),
    "pvt_small": (24.49, 3.82),
    "pvt_medium": (44.21, 6.66),
    "pvt_large": (61.37, 9.81),
    "cvt_13": (20.00, 4.57),
    "cvt_21": (31.62, 7.18),
}


@pytest.mark.parametrize("name", PEERS)
def test_peers_have_the_published_sizes(name: str) -> None:
    if name in HUGGING_FACE:
        pytest.importorskip("transformers")
    with torch.device("meta"):
        network = PEERS[name](224)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    found = parameters / 1e6, count_macs(network, (224, 224)) / 1e9
    assert tuple(round(value, 2) for value in found) == COUNTS[name]


def test_parameters_of_t2t_are_those_of_its_layers() -> None:
    """By hand: two token transformers, the projection, the class token, blocks, norm and head."""
    token = [2 * width + width * 192 + 64 * 65 + 128 + 2 * 64 * 65 for width in (147, 576)]
    block = 2 * 2 * 384 + 3 * 384**2 + 385 * 384 + 385 * 1152 + 1153 * 384
    rest = 577 * 384 + 384 + 2 * 384 + 385 * 1000
    with torch.device("meta"):
        network = PEERS["t2t_vit_t_14"](224)
    assert sum(each.numel() for each in network.parameters()) == sum(token) + 14 * block + rest


def test_a_token_transformer_is_its_formula() -> None:
    torch.manual_seed(0)
    module = TokenTransformer(12).double().eval()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    q, k, v = module.qkv(F.layer_norm(x, (12,), module.norm1.weight, module.norm1.bias)).split(
        64, 2
    )
    weights = torch.softmax(torch.einsum("bic,bjc->bij", q, k) / 12**0.5, 2)
    y = v + module.proj(torch.einsum("bij,bjc->bic", weights, v))
    expected = y + module.mlp(F.layer_norm(y, (64,), module.norm2.weight, module.norm2.bias))
    torch.testing.assert_close(module(x), expected)


def test_t2t_gives_logits_of_its_own_size_only() -> None:
    network = T2tVit(16, 1, 2, 48).eval()
    assert network.positions.shape == (1, 1 + 3 * 3, 16)
    assert network(torch.randn(2, 3, 48, 48)).shape == (2, 1000)
    with pytest.raises(RuntimeError, match="must match"):
        network(torch.randn(1, 3, 64, 64))


def test_positions_are_sines_and_cosines() -> None:
    table = sinusoids(6, 8)[0]
    for place, channel, frequency in ((3, 0, 1.0), (5, 4, 10000 ** (-4 / 8))):
        angle = torch.tensor(place * frequency)
        torch.testing.assert_close(table[place, channel], angle.sin())
        torch.testing.assert_close(table[place, channel + 1], angle.cos())


def coordinates(height: int, width: int) -> torch.Tensor:
    """Row and column of each patch: (1, height, width, 2)."""
    axes = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack(axes, -1)[None].float()


def patches(keys: torch.Tensor) -> list[tuple[int, ...]]:
    return [tuple(map(int, each)) for each in keys.tolist()]


def test_a_window_holds_its_own_patches() -> None:
    windows = partition(coordinates(14, 21))[0]
    assert windows.shape == (6, 49, 2)
    expected = [(row, column) for row in range(7, 14) for column in range(14, 21)]
    assert patches(windows[5]) == expected


def test_the_ring_of_a_window_surrounds_it() -> None:
    """The window in the middle of 3 x 3: all patches up to 3 away, 12 of them twice."""
    found = patches(ring(coordinates(21, 21), outside_patches())[0, 4])
    square = {(row, column) for row in range(4, 17) for column in range(4, 17)}
    own = {(row, column) for row in range(7, 14) for column in range(7, 14)}
    assert set(found) == square - own
    assert len(set(found)) == 120
    twice = {patch for patch in found if found.count(patch) == 2}
    sides = {(row, 10) for row in (4, 5, 6, 14, 15, 16)}
    assert twice == sides | {(column, row) for row, column in sides}
    assert len(found) == 132


def test_the_ring_wraps_around_the_map() -> None:
    found = set(patches(ring(coordinates(14, 14), outside_patches())[0, 0]))
    assert {(11, 0), (13, 13), (0, 12), (7, 7), (9, 2)} <= found
    rows = {row for row, _ in found}
    assert rows == set(range(14)) - {10}  # 11 to 13 are the three above the first


def test_pooled_windows_around_one_and_outside_of_the_map() -> None:
    summary = 1 + torch.arange(12.0).view(1, 3, 4, 1)
    found = around(summary, 3)[0]
    assert found.shape == (12, 9, 1)
    assert found[0].flatten().tolist() == [0, 0, 0, 0, 1, 2, 0, 5, 6]
    assert found[5].flatten().tolist() == [1, 2, 3, 5, 6, 7, 9, 10, 11]


@pytest.mark.parametrize("pooled", [1, 3, 5])
def test_biases_have_a_value_for_each_offset(pooled: int) -> None:
    module = FocalAttention(8, 2, pooled, has_ring=True)
    assert module.own_bias.shape == (2, 13 * 13)
    assert module.ring_bias.shape == (2, 49, 132)
    assert module.pooled_bias.shape == (2, (7 + pooled - 1) ** 2)
    index = module.pooled_index
    assert index.shape == (49, pooled**2)
    assert set(index.flatten().tolist()) == set(range((7 + pooled - 1) ** 2))
    # The same offset, from one patch and cell to the next, has the same bias.
    if pooled > 1:
        assert index[8, pooled + 1] == index[0, 0]
    assert module.own_index[3, 3] == module.own_index[40, 40] == 13 * 6 + 6


def test_focal_attention_is_a_softmax_over_all_keys_of_a_window() -> None:
    """One head, one query of the last window, from its definition."""
    torch.manual_seed(0)
    module = FocalAttention(4, 1, 3, has_ring=True).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(1, 14, 14, 4, dtype=torch.float64)
    window, patch = 3, 17
    own = partition(x)[0, window]
    beside = ring(x, outside_patches())[0, window]
    pooled = module.pool(partition(x).transpose(2, 3)).view(1, 2, 2, 4)
    places = [(row, column) for row in (0, 1, 2) for column in (0, 1, 2)]  # the window at (1, 1)
    seen = [pooled[0, row, column] for row, column in places if row < 2 and column < 2]
    keys = torch.cat((own, beside, torch.stack(seen)))
    _, k, v = module.qkv(keys).chunk(3, 1)
    q = module.qkv(own[patch])[:4]
    biases = [
        module.pooled_bias[0, module.pooled_index[patch, cell]]
        for cell, (row, column) in enumerate(places)
        if row < 2 and column < 2
    ]
    bias = torch.cat(
        (
            module.own_bias[0, module.own_index[patch]],
            module.ring_bias[0, patch],
            torch.stack(biases),
        )
    )
    logits = k @ q / 2 + bias
    # Pooled windows outside of the map keep what exp(-100) leaves of them.
    mixed = torch.softmax(logits, 0) @ v
    row, column = 7 + patch // 7, 7 + patch % 7
    torch.testing.assert_close(module(x)[0, row, column], module.proj(mixed))


def test_focal_attention_takes_maps_of_any_size() -> None:
    module = FocalAttention(8, 2, 3, has_ring=True)
    assert module(torch.randn(2, 9, 5, 8)).shape == (2, 9, 5, 8)
