from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from pacavit.engine import build, optim
from pacavit.errors import RecipeError, UnknownNameError
from pacavit.recipes import Recipe

MakeRecipe = Callable[..., Recipe]


@pytest.mark.parametrize(("schedule", "middle"), [("linear", 0.55), ("cosine", 0.55)])
def test_schedule_rises_then_falls(schedule: str, middle: float, make_recipe: MakeRecipe) -> None:
    config = make_recipe(lr=1.0, min_lr=0.1, warmup=0.2, schedule=schedule).train
    rates = [optim.lr_at(step, 100, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[19] == rates[20] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(middle)
    assert rates[100] == pytest.approx(0.1)
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_schedule_without_warm_up_or_of_one_step(make_recipe: MakeRecipe) -> None:
    assert optim.lr_at(0, 10, make_recipe(lr=1.0, warmup=0.0).train) == 1.0
    assert optim.lr_at(0, 1, make_recipe(lr=1.0, warmup=1.0).train) == 1.0


def test_weight_decay_spares_vectors(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(weight_decay=0.3)
    model = build.model(recipe.model, 3)
    optimizer = optim.create_optimizer(model, recipe.train)
    decay = {
        id(parameter): group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.3 if parameter.ndim > 1 else 0.0), name


def test_bad_optimizers_are_refused(make_recipe: MakeRecipe) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(UnknownNameError, match="did you mean 'adamw'"):
        optim.create_optimizer(model, make_recipe(optimizer="adamww").train)
    with pytest.raises(RecipeError, match="betta"):
        optim.create_optimizer(model, make_recipe(optimizer_options={"betta": 1}).train)


def test_average_covers_buffers_and_starts_at_the_first_weights() -> None:
    model = nn.BatchNorm2d(2)
    average = optim.create_average(model, 0.5)
    values = []
    for step in range(1, 40):
        model.running_mean = torch.full((2,), float(step))
        average.update(model, step=step)
        values.append(average.module.running_mean[0].item())
    assert values[0] == 1.0
    assert values[-1] == pytest.approx(38.0, abs=0.1)  # lags by decay / (1 - decay) = 1 step
    assert average.module.num_batches_tracked == model.num_batches_tracked
