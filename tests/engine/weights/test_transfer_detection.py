"""Detectors start from classifiers, other libraries, segmentation and detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from pacavit.data import DataInfo
from pacavit.detectors import Detector
from pacavit.engine import build, load_model, save_weights
from pacavit.engine.weights.transfer import initialize
from pacavit.recipes import Recipe, parse

CLASSES = ("cell", "platelet")
INFO = DataInfo("blood", "of the test", CLASSES, (64, 64), (0.4,) * 3, (0.2,) * 3)
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
LIGHT = {"channels": 32, "fc_channels": 16, "mask_channels": 8, "mask_convs": 1}
LIGHT_BOXES = {"channels": 32, "fc_channels": 16}
MASKS = {"name": "instance_segmentation", "detector": "mask_rcnn", "detector_options": LIGHT}
BOXES = {"name": "detection", "detector": "faster_rcnn", "detector_options": LIGHT_BOXES}
SEGMENTATION = {"name": "segmentation", "head": "paca", "head_options": {"channels": 8}}


def recipe(task: dict[str, Any], model: dict[str, Any] = NANO) -> Recipe:
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


def network(task: dict[str, Any], classes: Sequence[str] = CLASSES, **model: Any) -> nn.Module:
    info = replace(INFO, class_names=tuple(classes))
    return build.task(recipe(task, model or NANO), info).model


def trained(task: dict[str, Any], tmp_path: Path) -> Path:
    path, found = tmp_path / "trained.safetensors", network(task)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.copy_(torch.randn_like(parameter))
    save_weights(path, found, recipe(task), INFO, {})
    return path


def parts_copied(own: nn.Module, path: Path) -> set[str]:
    """The parts of a detector whose parameters are all those of a weights file."""
    weights = {
        (value.shape, round(value.double().sum().item(), 6))
        for value in load_model(path).task.model.parameters()
    }
    kept: dict[str, bool] = {}
    for name, value in own.named_parameters():
        part, key = name.split(".")[0], (value.shape, round(value.double().sum().item(), 6))
        kept[part] = kept.get(part, True) and key in weights
    return {part for part, whole in kept.items() if whole}


@pytest.mark.parametrize("task", [{"name": "classification"}, SEGMENTATION])
def test_other_tasks_give_their_backbone(task: dict[str, Any], tmp_path: Path) -> None:
    path, own = trained(task, tmp_path), network(MASKS)
    lines = initialize(own, INFO, path)
    assert parts_copied(own, path) == {"backbone"}
    assert "newly initialized: neck, rpn, roi_heads" in lines


def test_a_detector_gives_everything(tmp_path: Path) -> None:
    path, own = trained(MASKS, tmp_path), network(MASKS)
    assert len(initialize(own, INFO, path)) == 1
    assert parts_copied(own, path) == {"backbone", "neck", "rpn", "roi_heads"}


def test_other_classes_get_new_last_layers(tmp_path: Path) -> None:
    path, own = trained(MASKS, tmp_path), network(MASKS, (*CLASSES, "nucleus"))
    before = {name: value.clone() for name, value in own.named_parameters()}
    lines = initialize(own, replace(INFO, class_names=(*CLASSES, "nucleus")), path)
    heads = "roi_heads.box_predictor.cls_score, roi_heads.box_predictor.bbox_pred"
    assert lines[1:] == [f"newly initialized: {heads}, roi_heads.mask_predictor.mask_fcn_logits"]
    assert parts_copied(own, path) == {"backbone", "neck", "rpn"}
    same = {name for name, value in own.named_parameters() if torch.equal(value, before[name])}
    assert {name.rpartition(".")[0] for name in same} == set(lines[1].split(": ")[1].split(", "))


def test_parts_of_another_kind_are_new(tmp_path: Path) -> None:
    path, own = trained(BOXES, tmp_path), network(MASKS)
    assert initialize(own, INFO, path)[1:] == ["newly initialized: roi_heads"]
    assert parts_copied(own, path) == {"backbone", "neck", "rpn"}


def test_a_segmentation_head_is_shared(tmp_path: Path) -> None:
    watershed = {
        "name": "instance_segmentation",
        "detector": "watershed",
        "detector_options": {"head_options": {"channels": 8}},
    }
    path, own = trained(SEGMENTATION, tmp_path), network(watershed)
    lines = initialize(own, replace(INFO, class_names=("other",)), path)
    assert lines[1:] == ["newly initialized: head.to_clusters, head.classifier"]


def test_files_of_other_libraries(tmp_path: Path) -> None:
    weights = timm.create_model("resnet18").state_dict()
    save_file(weights, tmp_path / "resnet18.safetensors")
    own = network(BOXES, name="resnet18")
    assert isinstance(own, Detector)
    lines = initialize(own, INFO, tmp_path / "resnet18.safetensors")
    assert lines[1:] == ["newly initialized: neck; rpn; roi_heads"]
    body = own.backbone.body.state_dict()
    assert torch.equal(body["layer2.0.conv1.weight"], weights["layer2.0.conv1.weight"])
