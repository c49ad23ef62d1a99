from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.data import Batch
from pacavit.tasks.classification import (
    Calibration,
    ClassificationConfig,
    ClassificationMetrics,
    ClassificationTask,
    Predictions,
    fit_temperature,
    measure_calibration,
)


def draw(temperature: float, num: int = 4000, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    """Logits (num, 5) of a network whose true class has the probabilities softmax(z / T)."""
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(num, 5, generator=generator)
    labels = torch.multinomial((logits / temperature).softmax(1), 1, generator=generator)[:, 0]
    return logits, labels


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5, 8.0])
def test_the_temperature_of_the_labels_is_found(true: float) -> None:
    logits, labels = draw(true)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(true, rel=0.1)
    best = minimize_scalar(
        lambda log: F.cross_entropy(logits.double() / math.exp(log), labels).item(),
        bounds=(-4, 4),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert found == pytest.approx(math.exp(best.x), rel=1e-5)


def test_large_logits_and_offsets_change_nothing_else() -> None:
    logits, labels = draw(1.5)
    found = fit_temperature(logits.double(), labels)
    assert found is not None
    assert fit_temperature(1000 * logits.double() + 1e5, labels) == pytest.approx(1000 * found)


def test_without_errors_no_temperature_is_best() -> None:
    logits = torch.randn(50, 4)
    assert fit_temperature(logits, logits.argmax(1)) is None


def test_without_skill_no_temperature_is_best() -> None:
    logits = torch.randn(50, 4)
    assert fit_temperature(logits, logits.argmin(1)) is None
    assert fit_temperature(torch.zeros(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])) is None


def test_losses_and_errors_before_and_after() -> None:
    # Sure of 0.9 and correct in 3 of 4: the temperature makes it sure of 0.75.
    logits = torch.tensor([[math.log(9.0), 0.0]]).expand(4, -1)
    labels = torch.tensor([0, 0, 0, 1])
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(math.log(9) / math.log(3))
    found = measure_calibration(logits, labels, 2.0)
    assert (found.temperature, found.num_images) == (2.0, 4)
    assert found.error_before == pytest.approx(0.15)
    assert found.error_after == pytest.approx(0, abs=1e-6)
    assert found.loss_before == pytest.approx(-(3 * math.log(0.9) + math.log(0.1)) / 4)
    assert found.loss_after == pytest.approx(-(3 * math.log(0.75) + math.log(0.25)) / 4)
    assert "temperature 2.000, fitted on 4 validation images: calibration error 0.1500" in str(
        found
    )


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_impossible_temperatures_are_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="must be positive and finite"):
        Calibration(temperature, 1, 0.0, 0.0, 0.0, 0.0)


def make_task() -> ClassificationTask:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    return ClassificationTask(model, ClassificationConfig(), 4)


def test_a_temperature_changes_probabilities_and_no_predicted_class() -> None:
    task, batch = make_task(), Batch.unlabeled(torch.randn(300, 3, 2, 2))
    plain = task.predict(batch)
    assert torch.equal(plain.probabilities, plain.logits.softmax(1))
    for temperature in (0.2, 3.0):
        task.temperature = temperature
        found = task.predict(batch)
        assert torch.equal(found.logits, plain.logits)
        assert torch.equal(found.probabilities, (plain.logits / temperature).softmax(1))
        assert torch.equal(found.probabilities.argmax(1), plain.logits.argmax(1))


def test_the_error_without_the_temperature_is_measured_too() -> None:
    task = make_task()
    assert "calibration_error_uncalibrated" not in task.metrics()
    task.temperature = 2.0
    metrics = task.metrics()
    logits, labels = draw(2.0)
    for part, targets in zip(logits.split(1000), labels.split(1000), strict=True):
        metrics.update(Predictions(part[:, :4], (part[:, :4] / 2).softmax(1)), targets.clamp_max(3))
    expected = measure_calibration(logits[:, :4], labels.clamp_max(3), 2.0)
    scores = metrics.compute()
    assert scores["calibration_error_uncalibrated"] == pytest.approx(expected.error_before)
    assert scores["calibration_error"] == pytest.approx(expected.error_after)


def test_errors_that_agree_in_the_first_batch_are_not_merged() -> None:
    metrics = ClassificationMetrics(3, calibrated=True)
    sure = torch.tensor([[100.0, 0.0, 0.0]])
    metrics.update(Predictions(sure, (sure / 2).softmax(1)), torch.tensor([0]))
    unsure = torch.tensor([[1.0, 0.0, 0.0]]).expand(9, -1)
    metrics.update(
        Predictions(unsure, (unsure / 0.1).softmax(1)), torch.zeros(9, dtype=torch.int64)
    )
    scores = metrics.compute()
    assert scores["calibration_error"] == pytest.approx(0, abs=1e-3)
    assert scores["calibration_error_uncalibrated"] > 0.3
