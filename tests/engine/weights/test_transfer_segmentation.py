"""Segmentation starts from weights of classifiers, of other libraries, and of segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pacavit.data import DataInfo
from pacavit.engine import build, load_model, save_weights
from pacavit.engine.weights.transfer import initialize
from pacavit.errors import CheckpointError
from pacavit.recipes import Recipe, parse
from pacavit.tasks.segmentation import Segmenter

CLASSES = ("road", "tree", "sky")
INFO = DataInfo("scenes", "of the test", CLASSES, (64, 64), (0.4,) * 3, (0.2,) * 3)
NANO = {
    "name": "pacavit_nano",
    "num_clusters": [4, 2, 0],
    "options": {
        "embed_dims": [16, 16, 32],
        "num_heads": [2, 2, 2],
        "stem_dims": [8],
        "depths": [2, 1, 1],
    },
}


def recipe(task: dict[str, Any], model: dict[str, Any]) -> Recipe:
    return parse(
        {
            "name": "test",
            "task": task,
            "data": {"name": "shapes"},
            "model": model,
            "train": {"epochs": 1, "batch_size": 2, "lr": 0.01},
        },
        "the test",
    )


def segmenter(
    model: dict[str, Any] = NANO, head: str = "paca", classes: Sequence[str] = CLASSES, **task: Any
) -> tuple[Segmenter, Recipe, DataInfo]:
    settings = {"name": "segmentation", "head": head, "head_options": {"channels": 8}} | task
    found, info = recipe(settings, model), replace(INFO, class_names=tuple(classes))
    network = build.task(found, info).model
    assert isinstance(network, Segmenter)
    return network, found, info


def classifier_file(tmp_path: Path, model: dict[str, Any] = NANO) -> Path:
    found = recipe({"name": "classification"}, model)
    path = tmp_path / "classifier.safetensors"
    save_weights(path, randomize(build.model(found.model, 3)), found, INFO, {})
    return path


def segmenter_file(tmp_path: Path, **settings: Any) -> Path:
    network, found, info = segmenter(**settings)
    path = tmp_path / "segmenter.safetensors"
    save_weights(path, randomize(network), found, info, {})
    return path


def randomize(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return network


def copied(network: nn.Module, weights: dict[str, Tensor]) -> set[str]:
    """The parameters of a network that it has from these weights, whatever their names."""

    def mark(value: Tensor) -> tuple[torch.Size, float]:
        return value.shape, round(value.double().sum().item(), 6)  # in any memory layout

    known = {mark(value) for value in weights.values()}
    return {name for name, value in network.named_parameters() if mark(value) in known}


def trained(path: Path) -> dict[str, Tensor]:
    return dict(load_model(path).task.model.named_parameters())


def test_a_classifier_gives_its_backbone(tmp_path: Path) -> None:
    path = classifier_file(tmp_path)
    network, _, info = segmenter()
    lines = initialize(network, info, path)
    names = {name for name, _ in network.named_parameters()}
    assert copied(network, trained(path)) == {n for n in names if n.startswith("backbone.")}
    assert lines[1:] == ["newly initialized: head", "left out: classifier"]


def test_other_clusters_stages_and_strides_are_named(tmp_path: Path) -> None:
    path = classifier_file(tmp_path)
    options: Any = NANO["options"]
    model = NANO | {"num_clusters": [4, 5, 0], "options": options | {"stem_stride": 4}}
    network, _, info = segmenter(model, stages=[0, 1])
    assert network.backbone.strides == (4, 8)
    lines = initialize(network, info, path)
    fresh = {
        name
        for name, _ in network.backbone.body.named_parameters()
        if name not in copied(network.backbone.body, trained(path))
    }
    assert fresh == {"stages.1.blocks.0.clustering.to_clusters.weight"}
    assert lines[1:] == [
        "stem_stride 4: the stem's weights were trained at stride 2",
        "newly initialized: stages.1.blocks.0.clustering.to_clusters, head",
        "left out: classifier, stages.2",
    ]


def test_a_backbone_of_another_depth_is_refused(tmp_path: Path) -> None:
    options: Any = NANO["options"]
    path = classifier_file(tmp_path)
    for depths, word in (([2, 2, 1], "missing"), ([1, 1, 1], "unexpected")):
        network, _, info = segmenter(NANO | {"options": options | {"depths": depths}})
        with pytest.raises(CheckpointError, match=f"blocks.1.* is {word}"):
            initialize(network, info, path)


@pytest.mark.parametrize("head", ["paca", "upernet"])
def test_segmentation_gives_the_whole_network(tmp_path: Path, head: str) -> None:
    path = segmenter_file(tmp_path, head=head)
    network, _, info = segmenter(head=head)
    assert len(initialize(network, info, path)) == 1
    names = {name for name, _ in network.named_parameters()}
    assert copied(network, trained(path)) == names
    network, _, info = segmenter(head=head, classes=("a", "b"))
    lines = initialize(network, info, path)
    layers = {"paca": ["to_clusters", "classifier"], "upernet": ["classifier", "auxiliary.2"]}[head]
    assert lines[1:] == ["newly initialized: " + ", ".join(f"head.{layer}" for layer in layers)]
    fresh = tuple(f"head.{layer}." for layer in layers)
    names = {name for name, _ in network.named_parameters() if not name.startswith(fresh)}
    assert copied(network, trained(path)) == names


def test_another_head_is_new(tmp_path: Path) -> None:
    path = segmenter_file(tmp_path)
    for settings in ({"head": "upernet"}, {"head_options": {"channels": 9}}):
        network, _, info = segmenter(**settings)
        assert initialize(network, info, path)[1:] == ["newly initialized: head"]
        found = copied(network, trained(path))
        assert {name.split(".")[0] for name in found} == {"backbone"}


def test_classifiers_start_from_segmentation_too(tmp_path: Path) -> None:
    path = segmenter_file(tmp_path)
    network = build.model(recipe({"name": "classification"}, NANO).model, 3)
    assert initialize(network, INFO, path)[1:] == ["newly initialized: head"]
    names = {name for name, _ in network.named_parameters() if not name.startswith("head.")}
    assert copied(network, trained(path)) == names


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto"])
def test_any_timm_model(tmp_path: Path, name: str) -> None:
    path = classifier_file(tmp_path, {"name": name})
    network, _, info = segmenter({"name": name})
    lines = initialize(network, info, path)
    assert lines[1] == "newly initialized: head"
    names = {n for n, _ in network.named_parameters() if n.startswith("backbone.")}
    assert copied(network, trained(path)) == names


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "pacavit_nano"])
def test_files_of_other_libraries(tmp_path: Path, name: str) -> None:
    weights = randomize(timm.create_model(name, num_classes=5)).state_dict()
    stored = {f"backbone.{key}": value.contiguous() for key, value in weights.items()}
    save_file(stored, tmp_path / "a.safetensors")
    network, _, info = segmenter({"name": name})
    lines = initialize(network, info, tmp_path / "a.safetensors")
    assert "100.0% of the backbone" in lines[0]
    assert lines[1:] == ["newly initialized: head"]
    names = {n for n, _ in network.named_parameters() if n.startswith("backbone.")}
    assert copied(network, weights) == names


def test_packaged_weights_start_segmentation() -> None:
    network, _, info = segmenter({"name": "pacavit_nano", "options": {"stem_stride": 4}})
    lines = initialize(network, info, "cifar10_nano_conv")
    assert lines[1:] == [
        "stem_stride 4: the stem's weights were trained at stride 2",
        "newly initialized: head",
        "left out: classifier",
    ]
    stored: Any = load_model("cifar10_nano_conv").task.model
    for name, value in network.backbone.body.state_dict().items():
        assert torch.equal(value, stored.state_dict()[name]), name
