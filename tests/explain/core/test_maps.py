"""Cluster maps: what they are by definition, for every clustering."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pacavit.clustering import CLUSTERINGS
from pacavit.errors import PacavitError
from pacavit.explain.core import maps
from pacavit.explain.core.geometry import samplings, upsample
from pacavit.explain.core.record import BlockRecord, Recording, record
from pacavit.explain.core.rollout import relevance, rollout
from pacavit.models import PacaViT

SIZE = (40, 56)
MakeSmall = Callable[..., PacaViT]
SpellOut = Callable[[nn.Module, Tensor, int], list[Tensor]]


def recorded(model: PacaViT, images: Tensor | None = None) -> Recording:
    with record(model) as recording:
        recording.backward(model(torch.randn(2, 3, *SIZE) if images is None else images)[:, 1])
    return recording


@pytest.mark.parametrize("name", CLUSTERINGS.names())
def test_every_map_of_every_clustering_is_sound(small: MakeSmall, name: str) -> None:
    model = small(clustering=name).eval()
    recording = recorded(model)
    assert recording.clustered_stages == (0, 1)
    for stage, sampling in zip((0, 1), samplings(model), strict=False):
        for block in recording.stage(stage):
            assignment, grid = block.clusters()
            valid = assignment.valid
            heatmap = maps.heatmaps(block)
            expected = torch.ones(heatmap.shape[:2]) if valid is None else valid.float()
            torch.testing.assert_close(heatmap.sum((2, 3)), expected)
            clusters = maps.partition(block)
            assert clusters.shape == (2, *grid)
            assert clusters.min() >= -1
            assert clusters.max() < heatmap.shape[1]
            torch.testing.assert_close(maps.received(block).sum(1), torch.ones(2))
            assert (maps.importance(block) >= 0).all()
            if valid is not None:
                assert maps.received(block)[~valid].eq(0).all()
                assert maps.importance(block)[~valid].eq(0).all()
            rows = maps.patch_attention(block)
            torch.testing.assert_close(rows.sum(2), torch.ones(rows.shape[:2]))
            seen = maps.patch_map(block, grid.height - 1, 1)
            torch.testing.assert_close(seen.sum((1, 2)), torch.ones(2))
        for make in (maps.class_map, maps.attention_map):
            found = make(recording, stage)
            assert found.isfinite().all()
            assert (found >= 0).all()
            assert upsample(found, sampling, SIZE).shape == (2, *SIZE)
    for follow in (rollout, relevance):
        found = follow(recording, model)
        assert found.shape == (2, 10, 14)
        assert (found >= 0).all()
        torch.testing.assert_close(found.sum((1, 2)), torch.ones(2))


def test_an_image_has_the_maps_it_has_alone(small: MakeSmall) -> None:
    model = small(clustering="hierarchical").eval()
    images = torch.randn(3, 3, *SIZE)
    found = []
    for batch in (images, images[1:2]):
        with record(model) as recording:
            recording.backward(model(batch)[:, 1])
        found.append((maps.class_map(recording), relevance(recording, model)))
    for together, alone in zip(*found, strict=True):
        torch.testing.assert_close(together[1:2], alone)


def test_maps_are_the_sums_they_are_defined_as(small: MakeSmall) -> None:
    recording = recorded(small().eval())
    first, second = recording.stage()
    attention, gradient = first.attention(), first.attention_gradient()
    by_hand = torch.zeros(2, 3)
    for head in range(2):
        for patch in range(attention.shape[2]):
            product = attention[:, head, patch] * gradient[:, head, patch].clamp(min=0)
            by_hand += product
    torch.testing.assert_close(maps.importance(first), by_hand)
    expected = sum(
        (maps.importance(block)[:, :, None, None] * maps.heatmaps(block)).sum(1)
        for block in (first, second)
    )
    torch.testing.assert_close(maps.class_map(recording), expected)
    assignment, grid = first.clusters()
    p = attention.mean(1) @ assignment.weights
    torch.testing.assert_close(maps.patch_map(first, 2, 3), p[:, 2 * grid.width + 3].view(2, *grid))


def test_the_partition_undoes_the_normalization(small: MakeSmall) -> None:
    model = small(clustering="mlp").eval()
    recording = recorded(model)
    block = recording.stage(0)[0]
    clustering: Any = model.stages[0]
    scores: list[torch.Tensor] = []
    module = clustering.blocks[0].clustering
    plain = module.scores

    def kept(x: torch.Tensor, grid: Any) -> torch.Tensor:
        scores.append(plain(x, grid))
        return scores[-1]

    module.scores = kept
    torch.manual_seed(0)
    with record(model) as recording, torch.no_grad():
        model(torch.randn(2, 3, *SIZE))
    block = recording.stage(0)[0]
    torch.testing.assert_close(maps.partition(block).flatten(1), scores[0].argmax(1))


@pytest.mark.parametrize("num_clusters", [4, 0])
def test_rollout_and_relevance_are_products_of_the_matrices(
    small: MakeSmall, spell_out: SpellOut, num_clusters: int
) -> None:
    """Full matrices, multiplied from the first block to the last, as the papers do."""
    model = small(embed_dims=(8,), depths=(2,), num_heads=(2,), num_clusters=num_clusters)
    model = model.double().eval()
    images = torch.randn(2, 3, *SIZE, dtype=torch.float64)
    recording = recorded(model, images)
    identity = torch.eye(140, dtype=torch.float64).expand(2, -1, -1)
    flow, relevant = identity, identity
    for block, attention in zip(recording.blocks, spell_out(model, images, 1), strict=True):
        p, positive = attention_and_its_positive_part(block, attention)
        flow = (p + identity) / 2 @ flow
        relevant = relevant + positive @ relevant
    torch.testing.assert_close(rollout(recording, model).flatten(1), flow.mean(1).float())
    expected = (relevant - identity).mean(1)
    expected = expected / expected.sum(1, keepdim=True)
    torch.testing.assert_close(relevance(recording, model).flatten(1), expected.float())


def test_coarse_patches_spread_over_those_their_transition_read(
    small: MakeSmall, spell_out: SpellOut
) -> None:
    """The rule of a transition, one 3 x 3 convolution of stride 2, spelled out patch by patch."""
    settings = {"embed_dims": (8, 12), "depths": (1, 1), "num_heads": (2, 2), "num_clusters": 4}
    model = small(**settings).double().eval()
    images = torch.randn(2, 3, *SIZE, dtype=torch.float64)
    recording = recorded(model, images)
    read = torch.zeros(5, 7, 10, 14, dtype=torch.float64)
    for row, column in itertools.product(range(5), range(7)):
        top, left = 2 * row - 1, 2 * column - 1
        read[row, column, max(top, 0) : top + 3, max(left, 0) : left + 3] = 1
    read = read.view(35, 140) / read.view(35, 140).sum(1, keepdim=True)
    fine, coarse = (
        attention_and_its_positive_part(block, attention)
        for block, attention in zip(recording.blocks, spell_out(model, images, 1), strict=True)
    )
    expected = (coarse[0] + torch.eye(35)) / 2 @ read @ (fine[0] + torch.eye(140)) / 2
    torch.testing.assert_close(rollout(recording, model).flatten(1), expected.mean(1).float())
    expected = (coarse[1] + torch.eye(35)) @ read @ (fine[1] + torch.eye(140)) - read
    expected = expected.mean(1) / expected.mean(1).sum(1, keepdim=True)
    torch.testing.assert_close(relevance(recording, model).flatten(1), expected.float())


def attention_and_its_positive_part(block: BlockRecord, attention: Tensor) -> tuple[Tensor, Tensor]:
    """Of patches to patches, the mean over heads, without and with the gradient: (B, N, N)."""
    assert attention.grad is not None
    positive = (attention * attention.grad).clamp(min=0)
    found = attention.detach().mean(1), positive.detach().mean(1)
    weights = None if block.assignment is None else block.assignment.weights
    return found if weights is None else (found[0] @ weights, found[1] @ weights)


def test_wrong_patches_and_stages_are_reported(small: MakeSmall) -> None:
    recording = recorded(small().eval())
    with pytest.raises(IndexError, match="no patch at row 10"):
        maps.patch_map(recording.stage(0)[0], 10, 0)
    with pytest.raises(PacavitError, match="stage 2 has no clusters"):
        maps.class_map(recording, 2)
    with pytest.raises(PacavitError, match="no stage with clusters"):
        maps.class_map(recorded(small(num_clusters=0).eval()))
