from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pacavit.data import DataInfo
from pacavit.engine import build, load_model, save_weights
from pacavit.engine.weights.transfer import initialize
from pacavit.errors import CheckpointError, UnknownNameError
from pacavit.recipes import Recipe

MakeRecipe = Callable[..., Recipe]
SIZES = {
    "embed_dims": [16, 16, 32],
    "num_heads": [2, 2, 2],
    "stem_dims": [8, 8],
    "depths": [2, 1, 1],
}
TRAINED = {"name": "pacavit_nano", "num_clusters": [4, 2, 0], "options": SIZES}


def make_info(recipe: Recipe) -> DataInfo:
    return build.data_source(recipe).info


@pytest.fixture
def weights(make_recipe: MakeRecipe, tmp_path: Path) -> Path:
    """Weights of a small nano that knows three classes."""
    recipe = make_recipe(model=TRAINED)
    path = tmp_path / "weights.safetensors"
    save_weights(path, build.model(recipe.model, 3), recipe, make_info(recipe), {})
    return path


def start(
    make_recipe: MakeRecipe,
    weights: Path,
    classes: tuple[str, ...] = ("row", "column", "none"),
    **changes: Any,
) -> tuple[list[str], set[str], set[str]]:
    """What was told, which tensors are those of the weights, and which are as they were built."""
    recipe = make_recipe(model=TRAINED | changes)
    model = build.model(recipe.model, len(classes))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    info = replace(make_info(recipe), class_names=classes)
    lines = initialize(model, info, weights)
    stored = load_model(weights).task.model.state_dict()
    loaded, kept = set(), set()
    for name, value in model.state_dict().items():
        if name in stored and torch.equal(value, stored[name]):
            loaded.add(name)
        else:
            assert torch.equal(value, before[name]), name
            kept.add(name)
    return lines, loaded, kept


def test_the_same_network_gets_everything(make_recipe: MakeRecipe, weights: Path) -> None:
    lines, _, kept = start(make_recipe, weights)
    assert kept == set()
    assert lines == [f"started from {weights}, trained on made by the tests"]


def test_other_classes_get_a_new_classifier(make_recipe: MakeRecipe, weights: Path) -> None:
    for classes in (("row", "column"), ("cat", "dog", "owl")):
        lines, _, kept = start(make_recipe, weights, classes)
        # A bias begins at 0 in both.
        assert kept - {"head.bias"} == {"head.weight"}
        assert lines[1:] == ["newly initialized: head"]


def test_another_number_of_clusters_is_a_new_last_layer(
    make_recipe: MakeRecipe, weights: Path
) -> None:
    lines, _, kept = start(make_recipe, weights, num_clusters=[4, 3, 0])
    assert kept == {"stages.1.blocks.0.clustering.to_clusters.weight"}
    assert lines[1:] == ["newly initialized: stages.1.blocks.0.clustering.to_clusters"]


def test_another_clustering_is_new_as_a_whole(make_recipe: MakeRecipe, weights: Path) -> None:
    lines, _, kept = start(make_recipe, weights, clustering=["mlp", "conv", "conv"])
    prefix = "stages.0.blocks.0.clustering"
    assert kept == {
        f"{prefix}.{name}" for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
    }
    assert lines[1:] == [f"newly initialized: {prefix}"]


def test_clusterings_and_cluster_norms_may_come_and_go(
    make_recipe: MakeRecipe, weights: Path
) -> None:
    lines, _, kept = start(make_recipe, weights, num_clusters=[0, 2, 2])
    last = "stages.2.blocks.0"
    assert {name.rpartition(".")[0] for name in kept} <= {
        f"{last}.clustering.depthwise",
        f"{last}.clustering.pointwise",
        f"{last}.clustering.to_clusters",
        f"{last}.attn.cluster_norm",
    }
    assert f"{last}.clustering.to_clusters.weight" in kept
    assert lines[1:] == [
        f"newly initialized: {last}.clustering, {last}.attn.cluster_norm",
        "left out: stages.0.blocks.0.clustering, stages.0.blocks.0.attn.cluster_norm, "
        "stages.0.blocks.1.attn.cluster_norm",
    ]
    lines, _, kept = start(make_recipe, weights, recluster_every=1)
    assert all(name.startswith("stages.0.blocks.1.clustering.") for name in kept)
    assert lines[1:] == ["newly initialized: stages.0.blocks.1.clustering"]


def test_teachers_come_and_go(make_recipe: MakeRecipe, weights: Path, tmp_path: Path) -> None:
    taught: dict[str, Any] = {"clustering": "teacher", "num_clusters": [4, 2, 2]}
    lines, _, kept = start(make_recipe, weights, **taught)
    assert {name.split(".")[0] for name in kept if "cluster_norm" not in name} == {"teacher"}
    assert lines[1:] == [
        "newly initialized: stages.2.blocks.0.attn.cluster_norm, teacher",
        "left out: stages.0.blocks.0.clustering, stages.1.blocks.0.clustering",
    ]
    recipe = make_recipe(model=TRAINED | taught)
    path = tmp_path / "taught.safetensors"
    save_weights(path, build.model(recipe.model, 3), recipe, make_info(recipe), {})
    lines, _, _ = start(make_recipe, path, **(taught | {"num_clusters": [4, 3, 2]}))
    assert lines[1:] == ["newly initialized: teacher.clusterings.1.to_clusters"]
    lines, _, _ = start(make_recipe, path, num_clusters=[4, 2, 2])
    assert lines[2] == "left out: teacher"


def test_everything_else_must_fit(make_recipe: MakeRecipe, weights: Path) -> None:
    wide = SIZES | {"embed_dims": [16, 16, 48]}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"options": wide}, r"stages\.2\..* is \(.*\) and must be \("),
        ({"options": SIZES | {"depths": [2, 2, 1]}}, r"stages\.1\.blocks\.1\..* is missing"),
        ({"options": SIZES | {"depths": [1, 1, 1]}}, r"stages\.0\.blocks\.1\..* is unexpected"),
    ]
    # What leaves no trace in the shapes of weights.
    cases += [
        (
            {"options": SIZES | {"num_heads": [2, 4, 2]}},
            r"its stages\.1\.blocks\.0\.attn\.num_heads is 2 and must be 4",
        ),
        ({"options": SIZES | {"act_layer": "gelu"}}, r"\.act is ReLU and must be GELU"),
    ]
    for changes, message in cases:
        with pytest.raises(CheckpointError, match=message) as caught:
            start(make_recipe, weights, **changes)
        assert str(caught.value).startswith(f"model.init: {weights} does not fit the model: ")
        assert "\n" not in str(caught.value)


def test_networks_without_a_known_classifier_must_fit_as_a_whole(
    make_recipe: MakeRecipe, finished: Path
) -> None:
    recipe = make_recipe()
    info = make_info(recipe)
    initialize(build.model(recipe.model, 3), info, finished)
    two = replace(info, class_names=("a", "b"))
    with pytest.raises(CheckpointError, match=r"head\.weight is \(3, 8\) and must be \(2, 8\)"):
        initialize(build.model(recipe.model, 2), two, finished)


def test_any_timm_model_gets_a_new_classifier(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(model={"name": "resnet10t"})
    info, path = make_info(recipe), tmp_path / "resnet.safetensors"
    save_weights(path, build.model(recipe.model, 3), recipe, info, {})
    two = replace(info, class_names=("a", "b"))
    assert initialize(build.model(recipe.model, 2), two, path)[1:] == ["newly initialized: fc"]


def test_weights_that_are_not_there_are_one_line(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    model, info = nn.Linear(1, 1), make_info(make_recipe())
    with pytest.raises(UnknownNameError, match="'cifar10_nano_con'; did you mean"):
        initialize(model, info, "cifar10_nano_con")
    with pytest.raises(CheckpointError, match="no run folder or weights file"):
        initialize(model, info, tmp_path / "none.safetensors")
