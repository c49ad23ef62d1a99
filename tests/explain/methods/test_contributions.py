"""Contributions of clusters: they add up, follow the clusters, are exact on a linear network."""

import pytest
import torch
from torch import Tensor, nn

from pacavit.errors import PacavitError
from pacavit.explain import METHODS, Recording, record
from pacavit.explain.core.geometry import samplings, upsample
from pacavit.explain.core.rollout import relevance
from pacavit.explain.evaluation.metrics import BASELINES
from pacavit.explain.methods.contributions import (
    averaged_over_clusters,
    memberships,
    pixel_contributions,
)
from pacavit.models import PacaViT

HEADS = (2, 2, 4)


class Linear(nn.Module):
    """Class k is the weighted sum of the pixels."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, images: Tensor) -> Tensor:
        return torch.einsum("bchw,kchw->bk", images, self.get_buffer("weights"))


@pytest.mark.parametrize("steps", [1, 3])
def test_contributions_to_a_linear_score_are_exact(steps: int) -> None:
    images, weights = torch.randn(2, 3, 20, 24), torch.randn(4, 3, 20, 24)
    classes = torch.tensor([3, 1])
    found = pixel_contributions(Linear(weights), images, classes, steps)
    start = sum(baseline(images) for baseline in BASELINES.values()) / len(BASELINES)
    expected = ((images - start) * weights[classes]).sum(1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_they_approach_the_score_that_was_gained() -> None:
    torch.manual_seed(0)
    model = PacaViT(
        embed_dims=(8, 12), depths=(1, 1), num_heads=HEADS[:2], num_clusters=(5, 0)
    ).eval()
    images, classes = torch.randn(2, 3, 32, 32), torch.tensor([1, 2])

    def score(images: Tensor) -> Tensor:
        return model(images).gather(1, classes[:, None])[:, 0].detach()

    gained = score(images) - sum(score(f(images)) for f in BASELINES.values()) / len(BASELINES)
    found = pixel_contributions(model, images, classes, 64).sum((1, 2))
    torch.testing.assert_close(found, gained, atol=2e-3, rtol=0.02)


def test_averages_are_those_of_each_cluster() -> None:
    labels = torch.tensor([[[0, 0, 1], [2, 1, 1]]])
    members = nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    values = torch.tensor([[[1.0, 3.0, 2.0], [7.0, 4.0, 6.0]]])
    expected = torch.tensor([[[2.0, 2.0, 4.0], [7.0, 4.0, 4.0]]])
    torch.testing.assert_close(averaged_over_clusters(values, [members]), expected)
    rows = torch.tensor([[[0, 0, 0], [1, 1, 1]]])
    other = nn.functional.one_hot(rows, 2).permute(0, 3, 1, 2).float()
    both = torch.tensor([[[2.0, 2.0, 2.0], [7.0, 5.0, 5.0]]])
    torch.testing.assert_close(averaged_over_clusters(values, [members, other]), both)


def test_memberships_of_soft_and_hard_clusters() -> None:
    for clustering in ("conv", "hierarchical", "dbscan"):
        model = PacaViT(
            embed_dims=(8, 12),
            depths=(1, 1),
            num_heads=HEADS[:2],
            num_clusters=(5, 0),
            clustering=clustering,
        ).eval()
        with record(model) as recording, torch.no_grad():
            model(torch.randn(2, 3, 32, 48))
        members = memberships(recording.stage(0)[-1])
        total = members.sum(1)
        assert ((total - 1).abs().lt(1e-5) | total.eq(0)).all()
        if clustering == "hierarchical":
            assert members.unique().tolist() == [0, 1]


def test_maps_join_averages_over_clusters_with_relevance() -> None:
    """By the formula: with the gradient at the image or in the middle of the way to it."""
    torch.manual_seed(0)
    model = PacaViT(
        embed_dims=(8, 12), depths=(1, 1), num_heads=HEADS[:2], num_clusters=(5, 3)
    ).eval()
    images, classes = torch.randn(2, 3, 32, 32), torch.tensor([1, 2])
    start = sum(baseline(images) for baseline in BASELINES.values()) / len(BASELINES)
    middle = ((images + start) / 2).requires_grad_()
    with record(model) as recording:
        score = model(middle).gather(1, classes[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, middle)
    values = (gradient * (images - start)).sum(1)
    found = METHODS.create("cluster_gradient", model, options={})(images, classes)
    torch.testing.assert_close(found, joined(values, recording, model))
    contributions = pixel_contributions(model, images, classes, 2)
    with record(model) as recording:
        recording.backward(model(images).gather(1, classes[:, None])[:, 0])
    found = METHODS.create("cluster_contributions", model, options={})(images, classes)
    torch.testing.assert_close(found, joined(contributions, recording, model))
    torch.testing.assert_close(found.sum((1, 2)), torch.ones(2))


def joined(values: Tensor, recording: Recording, model: PacaViT) -> Tensor:
    """Half the positive averages over the clusters of both stages, half the relevance."""
    where = samplings(model)
    members = [
        upsample(memberships(recording.stage(stage)[-1]), where[stage], (32, 32))
        for stage in (0, 1)
    ]
    averages = averaged_over_clusters(values, members).relu()
    flow = upsample(relevance(recording, model), where[0], (32, 32))
    first, second = (part / part.sum((1, 2))[:, None, None] for part in (averages, flow))
    return (first + second) / 2


def test_where_nothing_contributes_the_map_is_finite() -> None:
    model = PacaViT(
        embed_dims=(8, 12), depths=(1, 1), num_heads=HEADS[:2], num_clusters=(5, 3), num_classes=3
    ).eval()
    nn.init.zeros_(model.get_parameter("head.weight"))
    images, classes = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    for name in ("cluster_gradient", "cluster_contributions"):
        assert METHODS.create(name, model, options={})(images, classes).eq(0).all()


def test_one_stage_alone_and_what_is_refused() -> None:
    model = PacaViT(
        embed_dims=(8, 12, 16), depths=(1, 1, 1), num_heads=HEADS, num_clusters=(5, 3, 0)
    ).eval()
    images, classes = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    maps = [
        METHODS.create("cluster_contributions", model, options=options)(images, classes)
        for options in ({}, {"stage": 0}, {"stage": 1}, {"steps": 1})
    ]
    assert all((one >= 0).all() and one.shape == (2, 32, 32) for one in maps)
    assert not any(one.equal(maps[0]) for one in maps[1:])
    with pytest.raises(PacavitError, match="steps must be 1 or more, not 0"):
        METHODS.create("cluster_contributions", model, options={"steps": 0})
    with pytest.raises(PacavitError, match="stage 2 has no clusters"):
        METHODS.create("cluster_contributions", model, options={"stage": 2})
