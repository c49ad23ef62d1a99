from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pacavit.data import Batch
from pacavit.errors import RecipeError
from pacavit.tasks import TASKS, ClassificationTask
from pacavit.tasks.classification import (
    ClassificationConfig,
    ClassificationMetrics,
    Prediction,
)
from pacavit.tasks.classification.config import MixConfig


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


def test_mixed_labels_are_smoothed_like_others() -> None:
    task, batch = make_task(), make_batch()
    hard = F.one_hot(batch.labels, 4).float()
    torch.testing.assert_close(task(batch._replace(labels=hard))["loss"], task(batch)["loss"])
    soft = 0.3 * hard + 0.7 * hard.flip(0)
    expected = (
        0.3 * task(batch)["loss"] + 0.7 * task(batch._replace(labels=batch.labels.flip(0)))["loss"]
    )
    torch.testing.assert_close(task(batch._replace(labels=soft))["loss"], expected)


def test_mixing_follows_the_config() -> None:
    make = ClassificationTask.train_batch_transform
    assert make(ClassificationConfig(), 4, 10) is None
    assert make(ClassificationConfig(mix=MixConfig(cutmix=1.0)), 4, 10) is not None


def test_top5_accuracy_and_calibration_error() -> None:
    metrics = ClassificationMetrics(6)
    probabilities = torch.tensor([[0.5, 0.2, 0.1, 0.1, 0.06, 0.04]]).expand(4, -1)
    metrics.update(Prediction(probabilities.log(), probabilities), torch.tensor([0, 1, 4, 5]))
    scores = metrics.compute()
    assert scores["accuracy"] == 0.25
    assert scores["top5_accuracy"] == 0.75
    assert scores["calibration_error"] == pytest.approx(0.25)  # sure at 0.5, right at 0.25
    assert "top5_accuracy" not in ClassificationMetrics(5)


def test_a_confidence_of_one_counts_to_the_last_bin() -> None:
    metrics = ClassificationMetrics(3)
    probabilities = torch.tensor([[1.0, 0.0, 0.0], [0.95, 0.05, 0.0]])
    metrics.update(Prediction(probabilities.log(), probabilities), torch.tensor([1, 0]))
    # One bin: right in a half, sure of 0.975.
    assert metrics.compute()["calibration_error"] == pytest.approx(0.475, abs=1e-6)


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
