"""Elastic clusterings: any number of clusters from one training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pacavit.clustering import CLUSTERINGS, use_clusters
from pacavit.errors import RecipeError
from pacavit.models import PacaViT
from pacavit.types import Grid

NAMES = ("conv", "mlp", "linear")
GRID = Grid(6, 6)


def build(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return CLUSTERINGS.create(name, 8, 5, options={"elastic": True, **options})


def build_model(elastic: bool = True) -> PacaViT:
    torch.manual_seed(0)
    return PacaViT(
        embed_dims=(16, 16),
        depths=(1, 1),
        num_heads=(2, 2),
        num_classes=4,
        num_clusters=(6, 0),
        clustering_options={"elastic": elastic},
    )


@pytest.mark.parametrize("name", NAMES)
def test_training_keeps_the_first_clusters_and_evaluation_all(name: str) -> None:
    module, x = build(name), torch.randn(400, 36, 8)
    expected = CLUSTERINGS.create(name, 8, 5, options={})
    expected.load_state_dict(module.state_dict())
    plain = expected(x, GRID)
    assert plain.valid is None
    weights, _, valid = module.train()(x, GRID)
    counts = valid.sum(1)
    assert torch.equal(valid, torch.arange(5) < counts[:, None])
    torch.testing.assert_close(weights[valid], plain.weights[valid])
    assert weights[~valid].eq(0).all()
    assert torch.bincount(counts, minlength=6)[1:].amin() > 50  # 80 on average
    found = module.eval()(x, GRID)
    torch.testing.assert_close(found.weights, plain.weights)
    assert found.valid.all()


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_uses_as_many_as_asked(name: str) -> None:
    module, x = build(name).eval(), torch.randn(2, 36, 8)
    every = module(x, GRID)
    few = build(name, num_active=3).eval()(x, GRID)
    torch.testing.assert_close(few.weights, every.weights[:, :3])
    assert few.valid.shape == few.log_mass.shape == (2, 3)


def test_draws_follow_from_the_seed() -> None:
    module, x = build("linear").train(), torch.randn(8, 36, 8)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(module(x, GRID).valid)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_gradient_checkpointing_repeats_the_draw() -> None:
    images, gradients = torch.randn(4, 3, 32, 32), []
    for checkpointing in (False, True):
        model = build_model().train()
        model.set_grad_checkpointing(checkpointing)
        torch.manual_seed(3)
        model(images).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_network_runs_with_every_number_of_clusters() -> None:
    model, images = build_model().eval(), torch.randn(2, 3, 64, 64)
    results = []
    with torch.no_grad():
        for number in (1, 3, 6, None):
            use_clusters(model, number)
            results.append(model(images))
    torch.testing.assert_close(results[2], results[3])
    assert not torch.allclose(results[0], results[3])


def test_the_first_clusters_learn_most() -> None:
    """Reconstruction from clusters: after elastic training, one cluster alone does much better."""
    torch.manual_seed(0)
    centers = torch.randn(3, 8) * torch.tensor([3.0, 1.0, 0.3])[:, None]
    x = centers.repeat_interleave(12, 0) + 0.1 * torch.randn(32, 36, 8)
    target = centers[0].expand(32, -1)
    errors = []
    for elastic in (False, True):
        torch.manual_seed(0)
        module: Any = CLUSTERINGS.create("linear", 8, 4, options={"elastic": elastic}).train()
        optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
        for _ in range(60):
            weights, _, valid = module(x, GRID)
            counts = 4 if valid is None else valid.sum(1, keepdim=True)
            loss = F.mse_loss((weights @ x).sum(1) / counts, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        first = (module.eval()(x, GRID).weights[:, :1] @ x)[:, 0]
        errors.append(F.mse_loss(first, target).item())
    assert errors[1] < errors[0]


def test_mistakes_are_one_line() -> None:
    with pytest.raises(RecipeError, match="num_active needs elastic = true"):
        CLUSTERINGS.create("conv", 8, 5, options={"num_active": 3})
    with pytest.raises(RecipeError, match="at most the 5 clusters of the stage, not 6"):
        build("mlp", num_active=6)
    with pytest.raises(RecipeError, match="num_active must be a whole number"):
        build("mlp", num_active=0)
    with pytest.raises(RecipeError, match="no clustering with elastic = true"):
        use_clusters(build_model(elastic=False), 3)
    model = build_model()
    with pytest.raises(RecipeError, match="at most the 6 clusters"):
        use_clusters(model, 7)
