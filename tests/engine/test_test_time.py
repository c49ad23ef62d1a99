"""Test-time augmentation of evaluate and predict."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pacavit
from pacavit.api import results_folder
from pacavit.data import Batch
from pacavit.engine import load_model, train
from pacavit.engine.test_time import augment_test_time
from pacavit.errors import CheckpointError, UnknownNameError
from pacavit.recipes import Recipe
from pacavit.report.run_page import run_page
from pacavit.tasks import MultilabelTask
from pacavit.tasks.classification import TEST_TIME_VIEWS, ImagePrediction
from pacavit.tasks.multilabel import MultilabelConfig
from pacavit_cli.main import main

MakeRecipe = Callable[..., Recipe]


def test_flip_averages_the_probabilities_of_both_views(finished: Path) -> None:
    plain, augmented = load_model(finished), augment_test_time(load_model(finished), "flip")
    for model in (plain, augmented):
        model.task.temperature = 2.0
    batch = Batch.unlabeled(torch.randn(6, 3, 8, 8))
    mirrored = Batch.unlabeled(batch.images.flip(3))
    views = [plain.classifier.predict(each).probabilities for each in (batch, mirrored)]
    assert not torch.allclose(views[0], views[1])
    found = augmented.classifier.predict(batch).probabilities
    torch.testing.assert_close(found, (views[0] + views[1]) / 2)
    torch.testing.assert_close(found, augmented.classifier.predict(mirrored).probabilities)
    assert "calibration_error_uncalibrated" in plain.task.metrics()
    assert "calibration_error_uncalibrated" not in augmented.task.metrics()


def test_shifted_views_are_reflected_at_the_edges() -> None:
    images = torch.arange(12.0).reshape(1, 1, 3, 4)
    views = TEST_TIME_VIEWS["flip_shift"](images)
    down = [[5.0, 4, 5, 6], [1, 0, 1, 2], [5, 4, 5, 6]]  # one pixel down and right
    up = [[5.0, 6, 7, 6], [9, 10, 11, 10], [5, 6, 7, 6]]
    for number, expected in enumerate((images[0, 0].tolist(), down, up)):
        assert views[2 * number][0, 0].tolist() == expected
        assert torch.equal(views[2 * number + 1], views[2 * number].flip(3))
    assert len(views) == 6


def test_labels_have_independent_probabilities() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    task = MultilabelTask(network, MultilabelConfig(), 3)
    task.test_time_augmentation = "flip"
    images = torch.randn(2, 3, 2, 2)
    expected = (network(images).sigmoid() + network(images.flip(3)).sigmoid()) / 2
    found = task.predict(Batch.unlabeled(images)).probabilities
    torch.testing.assert_close(found, expected)


def top(model: Any, **options: Any) -> dict[str, float]:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    path = Path("noise.png")
    Image.fromarray(pixels).save(path)
    (found,) = pacavit.predict(model, path, **options)
    assert isinstance(found, ImagePrediction)
    return {each.name: each.probability for each in found.top}


def test_predictions_with_and_without(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [
        train(make_recipe(epochs=1, seed=seed), tmp_path / str(seed), progress=False)
        for seed in (1, 2)
    ]
    alone = [top(run, tta="flip") for run in runs]
    assert alone[0] != top(runs[0])
    assert top(runs, tta="flip") == {
        name: pytest.approx((alone[0][name] + alone[1][name]) / 2, abs=1e-6) for name in alone[0]
    }


def test_results_of_a_run_are_apart_from_the_plain_ones(finished: Path) -> None:
    plain = pacavit.evaluate(finished)
    folder = finished / "evaluation-test"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    augmented = pacavit.evaluate(finished, tta="flip")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    apart = finished / "evaluation-test-tta-flip"
    assert results_folder(finished, tta="flip") == apart
    record = json.loads((apart / "evaluation.json").read_text())
    assert record["split"] == "test-tta-flip"
    assert record["command"][-2:] == ["--tta", "flip"]
    assert record["scores"]["loss"] == augmented.loss != plain.loss
    text = run_page(finished, load_model(finished))
    section = text.partition('id="test-time-augmentation"')[2].partition("</section>")[0]
    for name, result in (("none", plain), ("flip", augmented)):
        assert name in section
        assert f"{100 * result.accuracy:.1f} %" in section


def test_the_section_is_left_out_without_such_results(finished: Path) -> None:
    pacavit.evaluate(finished)
    assert 'id="test-time-augmentation"' not in run_page(finished, load_model(finished))


def test_unknown_names_and_other_tasks_are_refused(finished: Path, tmp_path: Path) -> None:
    for out in (None, tmp_path / "out"):
        with pytest.raises(UnknownNameError, match="unknown test-time augmentation 'flop'; did"):
            pacavit.evaluate(finished, tta="flop", out=out)
    with pytest.raises(UnknownNameError, match="did you mean 'flip'"):
        pacavit.predict(finished, tmp_path / "no.png", tta="flop")
    assert not (tmp_path / "out").exists()


def test_the_command_line_names_the_augmentation(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(finished), "--tta", "flip"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "test-time augmentation flip" in out
    assert "evaluation-test-tta-flip" in out
    assert (finished / "evaluation-test-tta-flip" / "evaluation.json").is_file()
    assert not (finished / "evaluation-test").exists()


def test_a_model_that_is_no_classifier(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(epochs=1).model_dump(mode="json")
    recipe["task"] = {"name": "guess", "scale": 2.0}
    run = train(pacavit.recipes.parse(recipe, "test"), tmp_path / "run", progress=False)
    with pytest.raises(CheckpointError, match="does not classify images"):
        augment_test_time(load_model(run), "flip")
