from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pacavit.detectors import FasterRcnn
from pacavit.engine import build, optim
from pacavit.errors import RecipeError, UnknownNameError
from pacavit.heads import PacaHead
from pacavit.models import build_pyramid
from pacavit.recipes import Recipe
from pacavit.tasks.segmentation import Segmenter

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


def test_a_detector_learns_faster_than_its_backbone(make_recipe: MakeRecipe) -> None:
    with torch.device("meta"):
        model = FasterRcnn(build_pyramid("pacavit_nano"), 2, channels=8)
    config = make_recipe(head_lr_scale=10.0, cluster_lr_scale=3.0).train
    optimizer = optim.create_optimizer(model, config)
    scales = {
        parameter: group["lr_scale"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert {name.split(".")[0] for name, _ in model.named_children()} > {"neck", "rpn"}
    for name, parameter in model.named_parameters():
        usual = 3.0 if ".clustering." in name else 1.0
        assert scales[parameter] == (usual if name.startswith("backbone.") else 10.0), name


def test_schedule_in_steps(make_recipe: MakeRecipe) -> None:
    config = make_recipe(
        lr=1.0, min_lr=0.02, warmup=0.05, schedule="steps", lr_drops=(8 / 12, 11 / 12)
    ).train
    rates = [optim.lr_at(step, 120, config) for step in range(120)]
    assert rates[0] == pytest.approx(1 / 6)
    assert rates[6:80] == [1.0] * 74
    assert rates[80:110] == pytest.approx([0.1] * 30)
    assert rates[110:] == pytest.approx([0.02] * 10)


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


def test_learning_rates_are_scaled_by_parameter_name(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(lr_scales={"conv.weight": 5.0, "*.weight": 2.0})
    model = build.model(recipe.model, 3)
    optimizer = optim.create_optimizer(model, recipe.train)
    optim.set_lr(optimizer, 0.1)
    rates = {each: group["lr"] for group in optimizer.param_groups for each in group["params"]}
    assert {name: round(rates[each], 6) for name, each in model.named_parameters()} == {
        "conv.weight": 0.5,
        "conv.bias": 0.1,
        "norm.weight": 0.2,
        "norm.bias": 0.1,
        "head.weight": 0.2,
        "head.bias": 0.1,
    }
    with pytest.raises(RecipeError, match="no parameter is left for 'steam"):
        optim.create_optimizer(model, make_recipe(lr_scales={"steam.*": 2.0}).train)


def rates(model: nn.Module, recipe: Recipe) -> dict[str, float]:
    """The learning rate of every parameter, by name, where that of the run is 1."""
    optimizer = optim.create_optimizer(model, recipe.train)
    optim.set_lr(optimizer, 1.0)
    of = {each: group["lr"] for group in optimizer.param_groups for each in group["params"]}
    assert len(of) == sum(len(group["params"]) for group in optimizer.param_groups)
    return {name: of[each] for name, each in model.named_parameters()}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_layers_further_down_learn_slower(optimizer: str, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(
        model={"name": "pacavit_mini"},
        layer_decay=0.5,
        lr_scales={"stages.0.blocks.0.mlp.*": 3.0},
        optimizer=optimizer,
    )
    model = build.model(recipe.model, 3)
    found = rates(model, recipe)
    assert found["head.weight"] == 1.0
    last = "stages.2.blocks.1.attn.q.weight"
    assert 0.25 <= found[last] <= 0.5
    assert found["stages.2.blocks.0.attn.q.weight"] == found[last] / 2
    stem = min(found.values())
    assert found["stages.0.embed.convs.0.0.weight"] == stem < 0.05
    first = found["stages.0.blocks.0.attn.q.weight"]
    assert found["stages.0.blocks.0.mlp.fc1.weight"] == 3 * first


def test_layer_decay_must_find_layers(
    make_recipe: MakeRecipe, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(layer_decay=0.5)
    with pytest.raises(RecipeError, match=r"layer_decay 0\.5 has no effect"):
        optim.create_optimizer(build.model(recipe.model, 3), recipe.train)
    assert capfd.readouterr().err == "", "timm's own warning would be a second line"


@pytest.mark.parametrize("clustering", ["conv", "mlp", "linear"])
def test_clustering_layers_are_found_by_what_they_are(
    clustering: str, make_recipe: MakeRecipe
) -> None:
    recipe = make_recipe(
        model={"name": "pacavit_nano", "clustering": clustering},
        cluster_lr_scale=10.0,
        lr_scales={"head.*": 2.0, "stages.0.blocks.*.weight": 0.5},
    )
    found = rates(build.model(recipe.model, 3), recipe)
    inside = {name for name in found if ".clustering." in name}
    assert inside
    for name, rate in found.items():
        scale = 10.0 if name in inside else 1.0
        scale *= 2.0 if name.startswith("head") else 1.0
        scale *= 0.5 if name.startswith("stages.0.blocks") and name.endswith("weight") else 1.0
        assert rate == pytest.approx(scale), name


@pytest.mark.parametrize("model", [{"attention": "full"}, {"clustering": "grid"}])
def test_a_factor_for_clusterings_needs_one_that_learns(
    model: dict[str, str], make_recipe: MakeRecipe
) -> None:
    recipe = make_recipe(model={"name": "pacavit_nano", **model}, cluster_lr_scale=10.0)
    with pytest.raises(RecipeError, match="cluster_lr_scale has no effect"):
        optim.create_optimizer(build.model(recipe.model, 3), recipe.train)


@pytest.mark.parametrize(
    ("clustering", "last"),
    [
        ("conv", "to_clusters"),
        ("mlp", "fc2"),
        ("linear", "to_clusters"),
        ("teacher", "to_clusters"),
    ],
)
def test_the_last_layer_of_a_clustering_is_known(
    clustering: str, last: str, make_recipe: MakeRecipe
) -> None:
    model = {"name": "pacavit_nano", "clustering": clustering, "num_clusters": [4, 4, 4]}
    recipe = make_recipe(model=model, cluster_lr_scale=10.0, cluster_lr_layers="last")
    found = rates(build.model(recipe.model, 3), recipe)
    pattern = re.compile(rf"\.clusterings?(\.\d)?\.{last}\.(weight|bias)")
    expected = {name for name in found if pattern.search(name)}
    assert len({name.rpartition(".")[0] for name in expected}) == 3
    assert {name for name, rate in found.items() if rate == 10.0} == expected
    assert set(found.values()) == {1.0, 10.0}


def test_the_classifier_has_a_rate_of_its_own(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(
        model={"name": "pacavit_nano"}, head_lr_scale=10.0, lr_scales={"head.bias": 0.5}
    )
    found = rates(build.model(recipe.model, 3), recipe)
    assert {name: rate for name, rate in found.items() if rate != 1.0} == {
        "head.weight": 10.0,
        "head.bias": 5.0,
    }
    recipe = make_recipe(head_lr_scale=10.0)  # tiny_net does not say what its classifier is
    with pytest.raises(RecipeError, match="head_lr_scale has no effect"):
        optim.create_optimizer(build.model(recipe.model, 3), recipe.train)


def test_a_head_on_a_pyramid_has_a_rate_of_its_own(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(model={"name": "pacavit_nano"}, head_lr_scale=10.0, cluster_lr_scale=2.0)
    pyramid = build.Networks(recipe.model).pyramid()
    network = Segmenter(pyramid, PacaHead(pyramid.channels, pyramid.strides, 3, channels=8))
    for name, rate in rates(network, recipe).items():
        inside = 2.0 if ".clustering." in name else 1.0
        assert rate == (10.0 if name.startswith("head.") else inside), name


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_only_layer_norms_may_be_free_of_decay(optimizer: str, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(
        model={"name": "pacavit_nano"},
        weight_decay=0.3,
        weight_decay_exempt="layer_norms",
        optimizer=optimizer,
    )
    model = build.model(recipe.model, 3)
    found = {
        each: group["weight_decay"]
        for group in optim.create_optimizer(model, recipe.train).param_groups
        for each in group["params"]
    }
    assert found.keys() == set(model.parameters())
    for path, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            assert found[parameter] == (0.0 if isinstance(module, nn.LayerNorm) else 0.3), path


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cluster_lr_layers": "last"}, "cluster_lr_layers 'last' has no effect without"),
        ({"weight_decay_exempt": "layer_norms", "weight_decay": 0.0}, "weight_decay is 0"),
        (
            {"cluster_lr_layers": "last", "cluster_lr_scale": 2.0, "model": {"clustering": "grid"}},
            "parameters to learn in a last layer",
        ),
    ],
)
def test_settings_without_effect_are_refused(
    settings: dict[str, Any], message: str, make_recipe: MakeRecipe
) -> None:
    model = {"name": "pacavit_nano"} | settings.pop("model", {})
    recipe = make_recipe(model=model, **settings)
    with pytest.raises(RecipeError, match=message):
        optim.create_optimizer(build.model(recipe.model, 3), recipe.train)


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
