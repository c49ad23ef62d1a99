from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pacavit.data import Batch, DataInfo, MemoryImages
from pacavit.errors import DataError, RecipeError
from pacavit.tasks import TASKS, ClassificationTask, NetworkFactory
from pacavit.tasks.classification import (
    ClassificationConfig,
    ClassificationMetrics,
    ClassificationPreprocess,
    Predictions,
    top_classes,
)
from pacavit.tasks.classification.config import MixConfig

INFO = DataInfo("toy", "toy", ("a", "b", "c", "d"), (2, 2), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def make_task() -> ClassificationTask:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    return ClassificationTask(model, ClassificationConfig(label_smoothing=0.2), 4)


def make_batch() -> Batch:
    return Batch(torch.randn(6, 3, 2, 2), torch.tensor([0, 1, 2, 3, 0, 0]), torch.arange(6))


def test_loss_is_smoothed_and_fp32_under_autocast() -> None:
    task, batch = make_task(), make_batch()
    expected = F.cross_entropy(task.model(batch.images), batch.targets, label_smoothing=0.2)
    assert torch.equal(task(batch)["loss"], expected)
    with torch.autocast("cpu", torch.bfloat16):
        loss = task(batch)["loss"]
    assert loss.dtype == torch.float32
    loss.backward()


def test_mixed_labels_are_smoothed_like_others() -> None:
    task, batch = make_task(), make_batch()
    hard = F.one_hot(batch.targets, 4).float()
    torch.testing.assert_close(task(replace(batch, targets=hard))["loss"], task(batch)["loss"])
    soft = 0.3 * hard + 0.7 * hard.flip(0)
    expected = (
        0.3 * task(batch)["loss"]
        + 0.7 * task(replace(batch, targets=batch.targets.flip(0)))["loss"]
    )
    torch.testing.assert_close(task(replace(batch, targets=soft))["loss"], expected)


def test_mixing_follows_the_config() -> None:
    def make(config: ClassificationConfig, training: bool = True) -> ClassificationPreprocess:
        found = ClassificationTask.preprocess(config, INFO, training=training, epochs=10)
        assert isinstance(found, ClassificationPreprocess)
        return found

    plain, mixing = ClassificationConfig(), ClassificationConfig(mix=MixConfig(cutmix=1.0))
    assert (make(plain).mix, make(plain).unit) == (None, 1)
    assert make(mixing).mix is not None
    assert make(mixing).unit == 2
    measuring = make(mixing, training=False)
    assert (measuring.mix, measuring.unit) == (None, 1)


def test_top5_accuracy_and_calibration_error() -> None:
    metrics = ClassificationMetrics(6)
    probabilities = torch.tensor([[0.5, 0.2, 0.1, 0.1, 0.06, 0.04]]).expand(4, -1)
    metrics.update(Predictions(probabilities.log(), probabilities), torch.tensor([0, 1, 4, 5]))
    scores = metrics.compute()
    assert scores["accuracy"] == 0.25
    assert scores["top5_accuracy"] == 0.75
    assert scores["calibration_error"] == pytest.approx(0.25)  # sure at 0.5, right at 0.25
    assert "top5_accuracy" not in ClassificationMetrics(5)


def test_a_confidence_of_one_counts_to_the_last_bin() -> None:
    metrics = ClassificationMetrics(3)
    probabilities = torch.tensor([[1.0, 0.0, 0.0], [0.95, 0.05, 0.0]])
    metrics.update(Predictions(probabilities.log(), probabilities), torch.tensor([1, 0]))
    # One bin: right in a half, sure of 0.975.
    assert metrics.compute()["calibration_error"] == pytest.approx(0.475, abs=1e-6)


def test_predictions_are_probabilities_without_gradients() -> None:
    predictions = make_task().predict(make_batch())
    assert not predictions.logits.requires_grad
    torch.testing.assert_close(predictions.probabilities.sum(1), torch.ones(6))


def test_predictions_are_one_record_an_image() -> None:
    task = make_task()
    predictions = task.predict(make_batch())
    assert len(predictions) == len(list(predictions)) == 6
    for number, record in enumerate(predictions):
        assert torch.equal(record.probabilities, predictions[number].probabilities)
        assert torch.equal(record.logits, predictions.logits[number])
    assert torch.equal(predictions[2:4].logits, predictions.logits[2:4])
    assert task.is_finite(predictions)
    predictions.probabilities[3, 1] = torch.nan
    assert not task.is_finite(predictions)


def test_the_top_classes_are_the_most_probable() -> None:
    probabilities = torch.tensor([0.1, 0.6, 0.05, 0.25])
    assert [name for name, _ in top_classes(probabilities, "abcd", 3)] == ["b", "d", "a"]
    assert top_classes(probabilities, "abcd", 9)[3].probability == pytest.approx(0.05)


def test_the_weight_of_a_loss_is_its_number_of_images() -> None:
    assert make_task().loss_weight(make_batch()) == 6


def test_labels_beyond_the_classes_are_refused() -> None:
    task, pixels = make_task(), torch.zeros(3, 3, 2, 2, dtype=torch.uint8)
    task.check_data(MemoryImages(pixels, torch.tensor([0, 3, 2])))
    with pytest.raises(DataError, match="labels up to 4, but the model knows 4 classes"):
        task.check_data(MemoryImages(pixels, torch.tensor([0, 4, 2])))


def test_metrics_have_names_and_shapes() -> None:
    task, batch = make_task(), make_batch()
    metrics = task.metrics()
    logits = F.one_hot(torch.tensor([0, 1, 2, 3, 1, 0]), 4) * 20.0
    for rows in (slice(0, 2), slice(2, 6)):
        part = Predictions(logits[rows], logits[rows].softmax(-1))
        metrics.update(part, batch.targets[rows])
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
    assert ClassificationTask.target == "label"


def test_a_task_builds_a_network_with_one_output_a_class() -> None:
    def network(*, num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))

    config = ClassificationConfig(label_smoothing=0.3)
    task = ClassificationTask.build(config, INFO, cast(NetworkFactory, network))
    assert task.predict(make_batch()).logits.shape == (6, 4)
    assert (task.config, task.num_classes) == (config, 4)


def test_summaries_have_the_order_of_tables() -> None:
    task, batch = make_task(), make_batch()
    metrics = task.metrics()
    metrics.update(task.predict(batch), batch.targets)
    results = metrics.compute()
    found = task.summarize(results)
    assert list(found)[:4] == ["accuracy", "loss", "precision_macro", "recall_macro"]
    assert found.keys() == results.keys() | {"support_per_class"}
    assert found["support_per_class"].tolist() == [3, 1, 1, 1]


def test_a_model_with_other_outputs_is_refused() -> None:
    task, images = make_task(), make_batch().images
    task.check(images)
    for model in (nn.Flatten(), nn.Identity()):
        task.model = model
        with pytest.raises(RecipeError, match=r"must return logits of shape \(6, 4\)"):
            task.check(images)
