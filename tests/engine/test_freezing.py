"""Layers that stop learning."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pacavit.engine import build, train
from pacavit.engine.freezing import Freezing, layers_of
from pacavit.errors import Interrupted, RecipeError
from pacavit.recipes import Recipe

MakeRecipe = Callable[..., Recipe]
StopAt = Callable[[int], AbstractContextManager[None]]
SMALL: dict[str, Any] = {
    "name": "pacavit_nano",
    "num_clusters": [4, 2, 0],
    "options": {"embed_dims": [16, 16, 32], "num_heads": [2, 2, 2], "stem_dims": [8, 16]},
}


def backward_flops(model: torch.nn.Module, images: Tensor) -> int:
    """Of convolutions and matrix products in a backward pass."""
    loss = model(images).square().sum()
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    return int(counter.get_total_flops())


def test_layers_are_counted_from_the_images(make_recipe: MakeRecipe) -> None:
    model = build.model(make_recipe(model=SMALL).model, 3)
    names = {parameter: name for name, parameter in model.named_parameters()}
    first = [names[layer[0]] for layer in layers_of(model)]
    assert first == [
        "stages.0.embed.convs.0.0.weight",
        "stages.0.blocks.0.norm1.weight",
        "stages.1.embed.convs.0.0.weight",
        "stages.1.blocks.0.norm1.weight",
        "stages.2.embed.convs.0.0.weight",
        "stages.2.blocks.0.norm1.weight",
        "head.weight",
    ]
    assert sum(map(len, layers_of(model))) == len(names)


def test_frozen_layers_get_no_gradient_and_no_backward_pass(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(model=SMALL, epochs=4, freeze=[[0.25, 1], [0.7, 3]])
    model = build.model(recipe.model, 3)
    freezing, layers = Freezing(model, recipe), layers_of(model)
    images = torch.randn(4, 3, 16, 16)
    outputs: dict[str, Tensor] = {}
    for name in ("stages.0.embed", "stages.0", "stages.1.embed", "stages.1"):
        model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: outputs.update(
                {name: output[0] if isinstance(output, tuple) else output}
            )
        )
    flops, changes = [], []
    # Rates 0, 1/4, 2/4 and 3/4 of the epochs are done.
    for epoch, count in enumerate((0, 1, 1, 3)):
        changes.append(freezing.apply(epoch))
        flops.append(backward_flops(model, images))
        for number, layer in enumerate(layers):
            assert all((each.grad is None) == (number < count) for each in layer), number
        reached = [name for name in outputs if outputs[name].requires_grad]
        assert reached == list(outputs)[(0, 1, 0, 3)[count] :]
    assert changes == [False, True, False, True]
    assert flops[0] > flops[1] == flops[2] > flops[3]
    # What is saved first are the gradients of the stem: of weights (3 -> 8 channels at 16 x 16
    # pixels, 8 -> 16 there, 16 -> 16 at 8 x 8) and of the inputs of all but the first convolution.
    macs = 16 * 16 * (3 * 8 + 2 * 8 * 16) + 8 * 8 * 2 * 16 * 16
    assert flops[0] - flops[1] == 4 * 2 * 9 * macs


def test_frozen_weights_stay_the_same_bits(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(
        model=SMALL,
        epochs=3,
        ema=None,
        weight_decay=0.5,
        freeze=[[0.3, 2]],
        keep_checkpoints=3,
        optimizer="muon",
    )
    run = train(recipe, tmp_path / "run", progress=False)
    states = [load_file(run / f"checkpoints/step-{step}/model.safetensors") for step in (5, 10, 15)]
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    for before, after in itertools.pairwise(states):
        for name, value in before.items():
            fixed = name.startswith("stages.0.") and not name.endswith(statistics)
            # In the last stage there is one patch, so nothing to learn for queries and keys.
            if fixed or ".attn." not in name:
                assert torch.equal(value, after[name]) == fixed, name


@pytest.mark.parametrize("stop", [4, 12])
def test_a_run_that_freezes_resumes_to_the_same_bits(
    stop: int, make_recipe: MakeRecipe, stop_at: StopAt, tmp_path: Path
) -> None:
    recipe = make_recipe(
        model=SMALL, freeze=[[0.3, 1], [0.6, 2]], whitening=0.5, lookahead=3, optimizer="muon"
    )
    whole = train(recipe, tmp_path / "whole", progress=False)
    with stop_at(stop), pytest.raises(Interrupted):
        train(recipe, tmp_path / "parts", progress=False)
    torch.manual_seed(1234)
    train(recipe, tmp_path / "parts", resume=True, progress=False)
    for name in ("model", "ema", "optimizer", "rng"):
        one, other = (
            load_file(run / f"checkpoints/step-15/{name}.safetensors")
            for run in (whole, tmp_path / "parts")
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (SMALL, {"freeze": [[0.5, 7]]}, "7 layers of a model that has 7; freeze at most 6"),
        (SMALL, {"freeze": [[0.9, 1]]}, "from 0.9 has no effect: the last of 3 epochs begins at"),
        (SMALL, {"freeze": [[0.0, 1]]}, "random weights; set model.init"),
        (None, {"freeze": [[0.5, 1]]}, "TinyNet has no group_matcher"),
    ],
)
def test_freezing_without_effect_is_refused(
    model: dict[str, Any] | None, options: dict[str, Any], message: str, make_recipe: MakeRecipe
) -> None:
    recipe = make_recipe(model=model, **options)
    with pytest.raises(RecipeError, match=message):
        Freezing(build.model(recipe.model, 3), recipe)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": [[0.5, 1], [0.5, 2]]}, "pairs, both increasing"),
        ({"freeze": [[0.5, 2], [0.7, 1]]}, "pairs, both increasing"),
        ({"freeze": [[1.0, 1]]}, "less than 1"),
        ({"freeze": [[0.5, 1]], "parallel": "fsdp"}, "need parallel"),
        ({"whitening": 0.0, "parallel": "fsdp"}, "need parallel"),
        ({"lookahead": 1}, "greater than or equal to 2"),
        ({"lookahead_alpha": 0.8}, "lookahead_alpha needs lookahead"),
        ({"whitening": 0.5, "model": {"init": "runs/mine"}}, "would replace trained weights"),
    ],
)
def test_senseless_combinations_are_refused(
    options: dict[str, Any], message: str, make_recipe: MakeRecipe
) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        make_recipe(**options)
    assert "\n" not in str(error.value)
