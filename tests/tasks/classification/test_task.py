from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pacavit.data import Batch
from pacavit.errors import RecipeError
from pacavit.tasks import TASKS, ClassificationTask
from pacavit.tasks.classification import ClassificationConfig, Prediction


def make_task() -> ClassificationTask:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    return ClassificationTask(model, ClassificationConfig(label_smoothing=0.2), 4)


def make_batch() -> Batch:
    return Batch(torch.randn(6, 3, 2, 2), torch.tensor([0, 1, 2, 3, 0, 0]), torch.arange(6))


def test_loss_is_smoothed_and_fp32_under_autocast() -> None:
    task, batch = make_task(), make_batch()
    expected = F.cross_entropy(task.model(batch.images), batch.labels, label_smoothing=0.2)
    assert torch.equal(task(batch)["loss"], expected)
    with torch.autocast("cpu", torch.bfloat16):
        loss = task(batch)["loss"]
    assert loss.dtype == torch.float32
    loss.backward()


def test_predictions_are_probabilities_without_gradients() -> None:
    prediction = make_task().predict(make_batch().images)
    assert not prediction.logits.requires_grad
    torch.testing.assert_close(prediction.probabilities.sum(1), torch.ones(6))


def test_metrics_have_names_and_shapes() -> None:
    task, batch = make_task(), make_batch()
    metrics = task.metrics()
    logits = F.one_hot(torch.tensor([0, 1, 2, 3, 1, 0]), 4) * 20.0
    for rows in (slice(0, 2), slice(2, 6)):
        part = Prediction(logits[rows], logits[rows].softmax(-1))
        metrics.update(part, batch.labels[rows])
    scores = metrics.compute()
    assert scores["accuracy"] == pytest.approx(5 / 6)
    assert scores["loss"] == pytest.approx(20 / 6, rel=1e-3)
    assert scores["confusion"].shape == (4, 4)
    for name in ("precision", "recall", "f1"):
        assert scores[f"{name}_macro"].ndim == scores[f"{name}_weighted"].ndim == 0
        assert scores[f"{name}_per_class"].shape == (4,)


def test_the_task_is_registered() -> None:
    assert TASKS.get("classification") is ClassificationTask
    assert ClassificationTask.config_type is ClassificationConfig
    assert ClassificationTask.main_metric in make_task().metrics()


def test_a_model_with_other_outputs_is_refused() -> None:
    task, images = make_task(), make_batch().images
    task.check(images)
    for model in (nn.Flatten(), nn.Identity()):
        task.model = model
        with pytest.raises(RecipeError, match=r"must answer with logits of shape \(6, 4\)"):
            task.check(images)
