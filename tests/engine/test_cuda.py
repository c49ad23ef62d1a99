"""What computes in another way on an NVIDIA GPU, against the CPU; see ``benchmarks/gpu.sh``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pacavit.attention import ATTENTIONS
from pacavit.clustering import CLUSTERINGS
from pacavit.clustering.functional import agglomerative, dbscan, gaussian_mixture, kmeans
from pacavit.engine import train
from pacavit.engine.run.log import read_metrics
from pacavit.recipes import Recipe
from pacavit.types import Assignment, Grid, StageState

pytestmark = pytest.mark.gpu

GRID = Grid(9, 11)
MakeRecipe = Callable[..., Recipe]


def tokens(channels: int = 24) -> Tensor:
    """(4, 99, C), in groups, without equal distances."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(4, 6, channels, generator=generator) * 3
    groups = torch.randint(0, 6, (4, GRID.num_patches), generator=generator)
    noise = torch.randn(4, GRID.num_patches, channels, generator=generator)
    return centers.gather(1, groups[..., None].expand_as(noise)) + noise


@pytest.mark.parametrize("linkage", ["ward", "average", "complete"])
def test_agglomerative_labels_are_those_of_the_cpu(linkage: str) -> None:
    x = tokens()
    assert torch.equal(
        agglomerative(x.cuda(), 5, linkage=linkage).labels.cpu(),
        agglomerative(x, 5, linkage=linkage).labels,
    )


def test_labels_of_kmeans_and_dbscan_are_those_of_the_cpu() -> None:
    x = tokens()
    found = kmeans(x.cuda(), 5, init="farthest")
    assert torch.equal(found.labels.cpu(), kmeans(x, 5, init="farthest").labels)
    noisy = dbscan(x.cuda(), 6.0, min_samples=4)
    assert torch.equal(noisy.labels.cpu(), dbscan(x, 6.0, min_samples=4).labels)


@pytest.mark.parametrize("kind", ["diag", "spherical", "full"])
def test_responsibilities_are_those_of_the_cpu(kind: str) -> None:
    x = tokens(6)
    options: dict[str, Any] = {"covariance_type": kind, "init": "farthest", "reg_covar": 1e-3}
    torch.testing.assert_close(
        gaussian_mixture(x.cuda(), 4, **options).responsibilities.cpu(),
        gaussian_mixture(x, 4, **options).responsibilities,
        atol=1e-5,
        rtol=1e-4,
    )


@pytest.mark.parametrize("name", CLUSTERINGS.names())
def test_clusterings_are_those_of_the_cpu(name: str) -> None:
    torch.manual_seed(0)
    clustering = CLUSTERINGS.create(name, 24, 5, options={}).eval()
    x = tokens()
    mask = torch.ones(4, *GRID, dtype=torch.bool)
    mask[0, :, -3:] = False
    mask = mask.flatten(1)
    with torch.no_grad():
        expected = clustering(x, GRID, mask)
        found = clustering.cuda()(x.cuda(), GRID, mask.cuda())
    torch.testing.assert_close(found.weights.cpu(), expected.weights, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ATTENTIONS.names())
def test_attentions_are_those_of_the_cpu(name: str) -> None:
    torch.manual_seed(0)
    attention = ATTENTIONS.create(name, 24, 3, options={}, stage=0, block=1).eval()
    x = tokens()
    scores = x[..., :5].transpose(1, 2)
    state = StageState(Assignment(scores.softmax(2), scores.logsumexp(2)), x[..., 0].exp())
    assert state.assignment is not None
    assert state.importance is not None
    moved = StageState(
        Assignment(state.assignment.weights.cuda(), state.assignment.log_mass.cuda()),
        state.importance.cuda(),
    )
    with torch.no_grad():
        expected, _ = attention(x, GRID, state)
        found, _ = attention.cuda()(x.cuda(), GRID, moved)
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [{}, {"precision": "bf16"}, {"compile": True}, {"precision": "bf16", "compile": True}],
    ids=("fp32", "bf16", "compiled", "compiled in bf16"),
)
def test_a_gpu_trains_like_the_cpu(
    settings: dict[str, Any], make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    losses = []
    for device in ("cpu", "cuda"):
        chosen = settings if device == "cuda" else {}
        recipe = make_recipe({"drop": 0.0}, device=device, epochs=2, **chosen)
        run = train(recipe, tmp_path / device, progress=False)
        losses.append([row["train_loss"] for row in read_metrics(run)])
    tolerance = 0.05 if settings.get("precision") == "bf16" else 1e-3
    torch.testing.assert_close(losses[1], losses[0], atol=0, rtol=tolerance)
