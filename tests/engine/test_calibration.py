"""Temperatures of trained runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pacavit.data import MemoryImages
from pacavit.engine import build, evaluate, load_model, save_weights, train
from pacavit.engine.calibration import calibrate
from pacavit.engine.weights.checkpoint import newest
from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import CheckpointError
from pacavit.recipes import Recipe
from pacavit.tasks import ImageClassifier, MultilabelTask
from pacavit.tasks.classification import fit_temperature
from pacavit.tasks.multilabel import MultilabelConfig

MakeRecipe = Callable[..., Recipe]
CPU = torch.device("cpu")


def predict_val(model: LoadedModel) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, probabilities and labels of all validation images."""
    images = build.data_source(model.recipe).load("val")
    assert isinstance(images, MemoryImages)
    batch = next(build.eval_loader(model.recipe, images, model.info).epoch(0))
    found = model.classifier.predict(batch)
    return found.logits, found.probabilities, images.labels


@pytest.fixture(params=[(2, 0.9), (1, None)], ids=["average", "no average"])
def run(make_recipe: MakeRecipe, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A run so short that some of its 60 validation images are incorrect."""
    epochs, ema = request.param
    made = make_recipe(epochs=epochs, ema=ema)
    made = made.model_copy(update={"data": made.data.model_copy(update={"val_size": 60})})
    return train(made, tmp_path / "run", progress=False)


def rewrite(file: Path, out: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of a weights file with another description."""
    with safe_open(file, framework="pt") as stored:
        description = json.loads(stored.metadata()["pacavit"])
    change(description)
    save_file(load_file(file), out, {"pacavit": json.dumps(description)})
    return out


def test_a_run_ends_with_a_temperature_of_its_final_weights(run: Path, tmp_path: Path) -> None:
    model = load_model(run)
    assert model.calibration is not None
    assert model.calibration.num_images == 60
    assert model.task.temperature == model.calibration.temperature != 1
    logits, probabilities, labels = predict_val(model)
    assert torch.equal(probabilities, (logits / model.task.temperature).softmax(1))
    losses = [
        torch.nn.functional.cross_entropy(logits / (factor * model.task.temperature), labels)
        for factor in (0.98, 1.0, 1.02)
    ]
    assert losses[1] == min(losses)
    assert model.calibration.loss_after == pytest.approx(losses[1].item(), rel=1e-4)
    assert model.calibration.loss_after < model.calibration.loss_before
    # Tensors, recipe and scores are those of the last checkpoint, which has no temperature.
    checkpoint = newest(run / "checkpoints")
    assert checkpoint is not None
    average = checkpoint / "ema.safetensors"
    weights = tmp_path / "plain.safetensors"
    rewrite(run / "weights.safetensors", weights, lambda found: found.pop("calibration"))
    final = average if average.exists() else checkpoint / "model.safetensors"
    assert weights.read_bytes() == final.read_bytes()


def test_weights_without_a_temperature_predict_as_before(run: Path, tmp_path: Path) -> None:
    calibrated = load_model(run)
    old = load_model(
        rewrite(
            run / "weights.safetensors", tmp_path / "old", lambda found: found.pop("calibration")
        )
    )
    assert old.calibration is None
    assert old.task.temperature == 1
    logits, probabilities, _ = predict_val(old)
    assert torch.equal(probabilities, logits.softmax(1))
    assert torch.equal(logits, predict_val(calibrated)[0])


def test_scores_before_and_after(run: Path) -> None:
    model = load_model(run)
    assert model.calibration is not None
    images = build.data_source(model.recipe).load("val")
    loader = build.eval_loader(model.recipe, images, model.info)
    scores = evaluate(model.task, loader, model.info.class_names).scores
    found = model.calibration
    assert scores["calibration_error"] == pytest.approx(found.error_after, rel=1e-4)
    assert scores["calibration_error_uncalibrated"] == pytest.approx(found.error_before, rel=1e-4)
    assert scores["loss"] == pytest.approx(found.loss_after, rel=1e-4)


def test_a_run_that_ends_before_its_weights_are_written_is_resumed(run: Path) -> None:
    file = run / "weights.safetensors"
    content = file.read_bytes()
    file.unlink()
    train(load_model(run).recipe, run, resume=True, progress=False)
    assert file.read_bytes() == content


def test_calibration_can_be_turned_off(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    made = make_recipe(epochs=2)
    task = made.task.model_copy(update={"calibrate": False})
    run = train(made.model_copy(update={"task": task}), tmp_path / "run", progress=False)
    model = load_model(run)
    assert model.calibration is None
    assert model.task.temperature == 1
    content = (run / "checkpoints" / "step-10" / "ema.safetensors").read_bytes()
    assert (run / "weights.safetensors").read_bytes() == content


def test_a_temperature_is_kept_when_weights_are_saved_again(run: Path, tmp_path: Path) -> None:
    model = load_model(run)
    for half in (False, True):
        save_weights(
            tmp_path / "again.safetensors",
            model.task.model,
            model.recipe,
            model.info,
            model.metrics,
            calibration=model.calibration,
            half=half,
        )
        assert load_model(tmp_path / "again.safetensors").calibration == model.calibration


@pytest.mark.parametrize("temperature", [0, -1.5, "warm", None, 1e999])
def test_a_broken_temperature_is_refused(run: Path, tmp_path: Path, temperature: Any) -> None:
    file = rewrite(
        run / "weights.safetensors",
        tmp_path / "broken.safetensors",
        lambda found: found["calibration"].update(temperature=temperature),
    )
    with pytest.raises(CheckpointError, match=r"the description inside .* is broken") as caught:
        load_model(file)
    assert "\n" not in str(caught.value)


def test_why_a_temperature_stays_1(make_recipe: MakeRecipe) -> None:
    made = make_recipe()
    source = build.data_source(made)
    task = build.task(made, source.info).eval()
    assert isinstance(task, ImageClassifier)
    images = source.load("val")
    assert isinstance(images, MemoryImages)
    logits = task.predict(next(build.eval_loader(made, images, source.info).epoch(0))).logits
    reasons = {"argmax": "all are classified correctly", "argmin": "has learned too little"}
    for choice, reason in reasons.items():
        labeled = MemoryImages(images.images, getattr(logits, choice)(1))
        loader = build.eval_loader(made, labeled, source.info)
        found = calibrate(task, loader, 3, device=CPU)
        assert isinstance(found, str)
        assert found.startswith("temperature 1: no other fits the 12 validation images")
        assert reason in found
        assert task.temperature == 1


def test_other_tasks_are_not_calibrated() -> None:
    assert not MultilabelTask(torch.nn.Identity(), MultilabelConfig(), 3).calibrates


def test_the_temperature_is_that_of_the_kept_weights(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        import_module("pacavit.engine.trainer"), "is_better", lambda score, best: best is None
    )
    run = train(make_recipe(keep="best", ema=None), tmp_path / "run", progress=False)
    model = load_model(run)
    logits, _, labels = predict_val(model)
    assert model.task.temperature == pytest.approx(fit_temperature(logits, labels))
