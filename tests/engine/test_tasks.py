"""A task that is no classification goes through a whole run, named in its recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from pacavit import api, recipes
from pacavit.data import Batch, DataInfo
from pacavit.engine import load_model
from pacavit.engine.predictor import predict_images
from pacavit.engine.run.log import read_metrics
from pacavit.errors import CheckpointError, UnknownNameError
from pacavit.recipes import Recipe
from pacavit.tasks import TASKS, Task, TaskConfig
from pacavit.tasks.classification.transforms import EvalTransform

MakeRecipe = Callable[..., Recipe]


class Closeness(Metric):
    """1 for exact guesses, nearer 0 the further off."""

    full_state_update = False
    off: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("off", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, guesses: Tensor, labels: Tensor) -> None:
        self.off += (guesses - labels).abs().sum()
        self.count += len(labels)

    def compute(self) -> Tensor:
        return 1 / (1 + self.off / self.count)


class GuessConfig(TaskConfig):
    scale: float


def transform(config: GuessConfig, info: DataInfo, image_size: int | None) -> EvalTransform:
    return EvalTransform(info, image_size)


class Guess(Task):
    """Takes the labels for numbers."""

    config_type = GuessConfig
    main_metric = "closeness"
    train_transform = staticmethod(transform)
    eval_transform = EvalTransform

    def __init__(self, model: nn.Module, config: GuessConfig, num_classes: int) -> None:
        super().__init__()
        self.model, self.scale = model, config.scale

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"square": (self._guess(batch.images) - batch.labels).square().mean()}

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        return self._guess(images)

    def metrics(self) -> MetricCollection:
        metrics: Any = {"closeness": Closeness()}
        return MetricCollection(metrics)

    def _guess(self, images: Tensor) -> Tensor:
        return self.scale * self.model(images).float().mean(1)


@pytest.fixture
def recipe(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(TASKS, "_entries", TASKS._entries | {"guess": Guess})
    data = make_recipe(epochs=2).model_dump(mode="json")
    return recipes.parse(data | {"task": {"name": "guess", "scale": 2.0}}, "test")


def test_another_task_trains_and_loads(recipe: Recipe, tmp_path: Path) -> None:
    run = api.train(recipe, tmp_path / "run")
    assert 0 < read_metrics(run)[-1]["val_closeness"] <= 1
    assert (run / "curves.png").is_file()
    loaded = load_model(run)
    assert loaded.recipe == recipe
    assert isinstance(loaded.task, Guess)
    assert loaded.task.scale == 2.0


def test_what_needs_a_classifier_says_so_in_one_line(recipe: Recipe, tmp_path: Path) -> None:
    run = api.train(recipe, tmp_path / "run")
    loaded = load_model(run)
    with pytest.raises(CheckpointError, match="no classifier, it learned the task 'guess'"):
        api.evaluate(run)
    with pytest.raises(CheckpointError, match="no classifier, it learned the task 'guess'"):
        predict_images(loaded, [], device=torch.device("cpu"))


def test_a_run_whose_task_is_not_registered_says_so(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = api.train(recipe, tmp_path / "run")
    others = {name: kind for name, kind in TASKS._entries.items() if name != "guess"}
    monkeypatch.setattr(TASKS, "_entries", others)
    for source in (run, run / "weights.safetensors"):
        with pytest.raises(UnknownNameError, match="unknown task 'guess'"):
            load_model(source)
