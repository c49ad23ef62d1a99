"""Weights of classes in the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from pacavit.data import Batch, DataInfo, MemoryImages, MemoryMasks
from pacavit.engine import build, train
from pacavit.engine.class_weights import (
    balanced_weights,
    median_frequency_weights,
    named_weights,
    weigh_classes,
)
from pacavit.errors import Interrupted, RecipeError, UnknownNameError
from pacavit.recipes import parse
from pacavit.recipes.schema import TrainConfig
from pacavit.tasks import ClassificationTask
from pacavit.tasks.classification import ClassificationConfig
from pacavit.tasks.multilabel import MultilabelConfig, MultilabelTask

INFO = DataInfo("folder", "of tests", ("ant", "bee", "cat"), (4, 4), (0, 0, 0), (1, 1, 1))
WEIGHTS = torch.tensor([0.5, 2.0, 4.0])


def a_batch(targets: Tensor) -> Batch:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(len(targets), 3, 4, 4, generator=generator)
    return Batch(images, targets, torch.arange(len(targets)))


def classification(**config: Any) -> ClassificationTask:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    return ClassificationTask(model, ClassificationConfig(**config), 3)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = torch.tensor([0] * 7 + [1] * 2 + [2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())
    torch.testing.assert_close(balanced_weights(labels, 3).double(), torch.tensor(expected))
    # A class that does not occur changes nothing for the others.
    torch.testing.assert_close(balanced_weights(labels, 4)[:3].double(), torch.tensor(expected))


def test_balanced_weights_of_several_labels_are_negatives_by_positives() -> None:
    labels = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.uint8)
    torch.testing.assert_close(balanced_weights(labels, 3), torch.tensor([1 / 3, 3.0, 4.0]))


def test_weights_of_masks_are_median_by_own_frequency() -> None:
    masks = torch.zeros(2, 10, 10, dtype=torch.uint8)
    masks[0, :2], masks[0, 2:3], masks[1, :1] = 1, 2, 255
    images = torch.zeros(2, 3, 10, 10, dtype=torch.uint8)
    # Class 0: 70 + 90 of 200 pixels, 1: 20 of 100, 2: 10 of 100; class 3 does not occur.
    expected = torch.tensor([0.2 / 0.8, 1.0, 0.2 / 0.1, 1.0])
    weights = median_frequency_weights(MemoryMasks(images, masks, 4).statistics)
    torch.testing.assert_close(weights, expected)


def test_weights_by_name() -> None:
    weights = named_weights({"cat": 4.0, "ant": 0.5}, INFO)
    assert weights.tolist() == [0.5, 1.0, 4.0]
    with pytest.raises(UnknownNameError, match=r"unknown class 'bees' in train\.class_weights"):
        named_weights({"bees": 1.0}, INFO)


def test_only_labeled_images_are_balanced() -> None:
    settings = {"epochs": 1, "batch_size": 1, "lr": 0.1, "class_weights": "balanced"}
    config, task = TrainConfig.model_validate(settings), classification()
    images = MemoryImages(torch.zeros(3, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 0, 1]))
    lines = weigh_classes(task, config, INFO, images)
    assert lines == ["class weights: 0.75 (ant) to 1.5 (bee)"]
    assert task.class_weights is not None
    assert task.class_weights.tolist() == [0.75, 1.5, 1.5]
    with pytest.raises(RecipeError, match="'balanced' needs images with class labels"):
        weigh_classes(task, config, INFO, object())  # type: ignore[arg-type]


def test_without_smoothing_the_loss_is_the_weighted_one_of_torch() -> None:
    task = classification(label_smoothing=0.0)
    task.set_class_weights(WEIGHTS)
    batch = a_batch(torch.tensor([0, 2, 1, 0, 2]))
    expected = F.cross_entropy(task.model(batch.images), batch.targets, weight=WEIGHTS)
    torch.testing.assert_close(task(batch)["loss"], expected)
    assert task.loss_weight(batch).item() == pytest.approx(0.5 + 4 + 2 + 0.5 + 4)


@pytest.mark.parametrize("mixed", [False, True])
def test_chunks_combine_to_the_loss_of_the_batch(mixed: bool) -> None:
    task = classification(label_smoothing=0.1)
    task.set_class_weights(WEIGHTS)
    labels = torch.tensor([0, 2, 1, 0, 2, 1, 1])
    targets = F.one_hot(labels, 3).float() if mixed else labels
    if mixed:
        targets = 0.7 * targets + 0.3 * targets.flip(0)
    batch = a_batch(targets)
    chunks = batch.chunk(3)
    weights = torch.stack([task.loss_weight(chunk) for chunk in chunks])
    losses = torch.stack([task(chunk)["loss"] for chunk in chunks])
    torch.testing.assert_close((weights * losses).sum() / weights.sum(), task(batch)["loss"])


def test_mixed_images_have_the_mean_weight_of_their_classes() -> None:
    targets = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]])
    task = classification()
    task.set_class_weights(WEIGHTS)
    found = task.image_weights(targets)
    assert found is not None
    torch.testing.assert_close(found, torch.tensor([0.25 * 0.5 + 0.75 * 2, 4.0]))


def test_weights_of_ones_change_nothing() -> None:
    task, batch = classification(), a_batch(torch.tensor([0, 2, 1]))
    before = task(batch)["loss"]
    task.set_class_weights(torch.ones(3))
    torch.testing.assert_close(task(batch)["loss"], before)


def test_several_labels_get_the_weights_as_pos_weight() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    task = MultilabelTask(model, MultilabelConfig(positive_weight=3.0), 3)
    task.set_class_weights(WEIGHTS)
    batch = a_batch(torch.tensor([[1, 0, 1], [0, 1, 0]], dtype=torch.uint8))
    expected = F.binary_cross_entropy_with_logits(
        model(batch.images), batch.targets.float(), pos_weight=3 * WEIGHTS
    )
    torch.testing.assert_close(task(batch)["loss"], expected)


def test_a_run_weighs_its_classes_and_stays_the_same_when_resumed(
    make_recipe: Any, stop_at: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(class_weights={"row": 5.0})
    whole = train(recipe, tmp_path / "whole")
    assert "class weights: 1 (column) to 5 (row)" in capsys.readouterr().out
    with stop_at(7), pytest.raises(Interrupted):
        train(recipe, tmp_path / "parts", progress=False)
    parts = train(recipe, tmp_path / "parts", resume=True, progress=False)
    plain = train(make_recipe(), tmp_path / "plain", progress=False)
    weights, resumed, without = (run / "weights.safetensors" for run in (whole, parts, plain))
    assert weights.read_bytes() == resumed.read_bytes()
    assert not torch.equal(load_file(weights)["head.weight"], load_file(without)["head.weight"])


def test_a_task_without_class_weights_refuses_them(tmp_path: Any) -> None:
    recipe = parse(
        {
            "name": "tiny",
            "task": {"name": "guess", "scale": 2.0},
            "data": {"name": "tiny-stripes"},
            "model": {"name": "tiny_net"},
            "train": {"epochs": 1, "batch_size": 10, "lr": 0.1, "class_weights": "balanced"},
        },
        "the test's recipe",
    )
    with pytest.raises(RecipeError, match="task 'guess' does not weigh classes"):
        train(recipe, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    assert build.task(recipe, build.data_source(recipe).info)
