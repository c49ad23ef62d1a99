"""Steps back toward a slow copy of the weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pacavit.engine import optim, train
from pacavit.errors import Interrupted, RecipeError
from pacavit.recipes import Recipe

MakeRecipe = Callable[..., Recipe]
StopAt = Callable[[int], AbstractContextManager[None]]


def test_weights_go_back_toward_the_slow_copy(make_recipe: MakeRecipe) -> None:
    """Plain descent with a constant gradient: each step subtracts the learning rate."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 10.0)
    descent = {"optimizer": "momentum", "optimizer_options": {"momentum": 0.0}, "weight_decay": 0.0}
    config = make_recipe(**descent, lookahead=3, lookahead_alpha=0.25).train
    optimizer = optim.create_optimizer(model, config)
    optim.set_lr(optimizer, 1.0)
    found = []
    for _ in range(9):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
        found.append(model.weight.item())
    # The slow copy begins at 7 and goes a quarter of the way: 7 - 3 / 4, then 6.25 - 3 / 4.
    assert found == [9, 8, 7, 6, 5, 6.25, 5.25, 4.25, 5.5]


@pytest.mark.parametrize(("optimizer", "stop"), [("adamw", 7), ("muon", 2), ("sgd", 9)])
def test_resume_gives_the_same_bits(
    optimizer: str, stop: int, make_recipe: MakeRecipe, stop_at: StopAt, tmp_path: Path
) -> None:
    scales = {"conv.*": 2.0}
    recipe = make_recipe(optimizer=optimizer, lookahead=4, epochs=2, lr_scales=scales)
    whole = train(recipe, tmp_path / "whole", progress=False)
    with stop_at(stop), pytest.raises(Interrupted):
        train(recipe, tmp_path / "parts", progress=False)
    train(recipe, tmp_path / "parts", resume=True, progress=False)
    one, other = (
        load_file(run / "checkpoints/step-10/optimizer.safetensors")
        for run in (whole, tmp_path / "parts")
    )
    assert sum(name.endswith("lookahead_slow_buff") for name in one) == 6
    assert all(torch.equal(one[name], other[name]) for name in one)
    weights = [run / "weights.safetensors" for run in (whole, tmp_path / "parts")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    plain = train(make_recipe(optimizer=optimizer, epochs=2, lr_scales=scales), tmp_path / "plain")
    assert (plain / "weights.safetensors").read_bytes() != weights[0].read_bytes()


def test_timms_name_for_it_is_refused_with_ours(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(optimizer="lookahead_adamw")
    with pytest.raises(RecipeError, match=r"optimizer = 'adamw' and train\.lookahead = 6"):
        optim.create_optimizer(nn.Linear(2, 2), recipe.train)
