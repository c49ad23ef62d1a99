"""Training that imitates a trained network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.data import Batch, DataInfo
from pacavit.engine import load_model, save_weights, train
from pacavit.engine.distillation import Teacher, load_distiller
from pacavit.errors import PacavitError, RecipeError
from pacavit.recipes import load
from pacavit.tasks import ClassificationTask, MultilabelTask
from pacavit.tasks.classification import ClassificationConfig, Distiller
from pacavit.tasks.multilabel import MultilabelConfig

INFO = DataInfo("toy", "toy", ("a", "b", "c"), (4, 4), (0.5,) * 3, (0.25,) * 3)
TEACHERS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
LOGITS = torch.tensor([[0.5, 0.2, -0.3], [1.0, 1.5, -2.0]])


class Fixed(nn.Module):
    """The same logits for all images."""

    def forward(self, images: Tensor) -> Tensor:
        return LOGITS[: len(images)]


def losses(task: Any, distiller: Distiller | None, targets: Tensor) -> dict[str, float]:
    task.distiller = distiller
    batch = Batch(torch.zeros(2, 3, 4, 4), targets, torch.arange(2))
    return {name: value.item() for name, value in task(batch).items()}


def teacher(images: Tensor) -> Tensor:
    return TEACHERS[: len(images)]


def test_soft_targets_are_hintons() -> None:
    task = ClassificationTask(Fixed(), ClassificationConfig(label_smoothing=0), 3)
    targets = torch.tensor([0, 2])
    alone = losses(task, None, targets)
    assert alone.keys() == {"loss"}
    found = losses(task, Distiller(teacher, weight=0.3, temperature=2), targets)
    wanted, own = (TEACHERS / 2).softmax(1), (LOGITS / 2).softmax(1)
    divergence = (wanted * (wanted / own).log()).sum(1).mean().item()
    assert found["labels"] == pytest.approx(0.7 * alone["loss"])
    assert found["distillation"] == pytest.approx(0.3 * 4 * divergence, rel=1e-5)


def test_hard_targets_are_deits() -> None:
    task = ClassificationTask(Fixed(), ClassificationConfig(label_smoothing=0), 3)
    found = losses(task, Distiller(teacher, hard=True), torch.tensor([0, 2]))
    expected = F.cross_entropy(LOGITS, torch.tensor([0, 1])).item()
    assert found["distillation"] == pytest.approx(0.5 * expected)


@pytest.mark.parametrize("hard", [False, True])
def test_several_labels_are_imitated_one_by_one(hard: bool) -> None:
    task = MultilabelTask(Fixed(), MultilabelConfig(), 3)
    found = losses(task, Distiller(teacher, hard=hard), torch.zeros(2, 3))
    wanted = (TEACHERS > 0).float() if hard else TEACHERS.sigmoid()
    expected = F.binary_cross_entropy(LOGITS.sigmoid(), wanted).item()
    assert found["distillation"] == pytest.approx(0.5 * expected, rel=1e-5)


class Means(nn.Module):
    """The mean of each channel."""

    def forward(self, images: Tensor) -> Tensor:
        self.shape = images.shape
        return images.mean((2, 3))


def test_a_teacher_gets_images_as_its_own_are_prepared() -> None:
    own = replace(INFO, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0), image_size=(6, 6))
    network = Means()
    pixels = torch.rand(2, 3, 1, 1).expand(2, 3, 4, 4)
    imitated = Teacher(network, own, INFO, torch.tensor([2, 0]))
    found = imitated((pixels - 0.5) / 0.25)
    expected = (pixels[..., 0, 0] - torch.tensor(own.mean)) / torch.tensor(own.std)
    assert network.shape == (2, 3, 6, 6)
    torch.testing.assert_close(found, expected[:, [2, 0]])


@pytest.mark.slow
def test_a_run_logs_both_losses_and_forgets_the_path_of_its_teacher(
    digits_run: Path, tmp_path: Path
) -> None:
    changes = ["train.epochs=1", f"train.teacher={json.dumps(str(digits_run))}"]
    changes += ["train.distillation_weight=0.25", "model.options={depths=[1,1,1]}"]
    run = train(load("digits", changes), tmp_path / "run", progress=False)
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    both = row["train_loss_labels"] + row["train_loss_distillation"]
    assert row["train_loss"] == pytest.approx(both, rel=1e-5)
    loaded = load_model(run / "weights.safetensors")
    assert loaded.recipe.train.teacher is None
    assert not [name for name in loaded.task.state_dict() if "teacher" in name]


def test_wrong_teachers(digits_run: Path, tmp_path: Path) -> None:
    recipe = load("digits", [f"train.teacher={json.dumps(str(digits_run))}"])
    trained = load_model(digits_run)
    device = torch.device("cpu")
    other = replace(trained.info, class_names=(*trained.info.class_names[:9], "ten"))
    with pytest.raises(RecipeError, match="does not know the classes ten; take a teacher that was"):
        load_distiller(recipe, other, device)
    several = load("multilabel_nano", [f"train.teacher={json.dumps(str(digits_run))}"])
    with pytest.raises(RecipeError, match="for the task 'classification', this run is for 'multil"):
        load_distiller(several, trained.info, device)
    nowhere = load("digits", ['train.teacher="no/where"'])
    with pytest.raises(PacavitError, match="no run folder or weights file at no/where"):
        load_distiller(nowhere, trained.info, device)
    weights = tmp_path / "other-order.safetensors"
    swapped = replace(trained.info, class_names=trained.info.class_names[::-1])
    save_weights(weights, trained.task.model, trained.recipe, swapped, {})
    recipe = load("digits", [f"train.teacher={json.dumps(str(weights))}"])
    distiller = load_distiller(recipe, trained.info, device)
    assert distiller is not None
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = trained.task.model(images)[:, torch.arange(9, -1, -1)]
    torch.testing.assert_close(distiller.teacher(images), expected)
