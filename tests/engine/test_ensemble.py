"""Ensembles of small runs on a folder of dark, gray and light images."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import pacavit
from pacavit import api
from pacavit.data import Batch
from pacavit.engine import load_model, train
from pacavit.engine.ensemble import Ensemble, _Collected, load_predictor, score_ensemble
from pacavit.errors import CheckpointError, DataError, PacavitError
from pacavit.recipes import Recipe, parse
from pacavit.tasks import MultilabelTask
from pacavit.tasks.classification import ImagePrediction, Predictions
from pacavit.tasks.multilabel import MultilabelConfig
from pacavit_cli.main import main

NAMES = ("dark", "gray", "light")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for low, name in zip((0, 60, 120), NAMES, strict=True):
        (root / name).mkdir()
        for number in range(20):
            pixels = rng.integers(low, low + 130, (12, 12, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02}.png")
    return root


def recipe(root: Path, classes: Sequence[str], size: int, seed: int) -> Recipe:
    return parse(
        {
            "name": "tiny",
            "task": {"image_size": size},
            "data": {
                "name": "folder",
                "root": str(root),
                "options": {"image_size": size, "classes": list(classes)},
            },
            "model": {"name": "tiny_net"},
            "train": {"epochs": 2, "batch_size": 8, "lr": 0.02, "seed": seed, "device": "cpu"},
        },
        "the test's recipe",
    )


@pytest.fixture(scope="module")
def runs(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs with other sizes of images, and the same classes in another order."""
    folder = tmp_path_factory.mktemp("runs")
    orders = (NAMES, ("light", "dark", "gray"))
    first, second = (
        train(recipe(images, order, size, seed), folder / f"run{seed}", progress=False)
        for order, size, seed in zip(orders, (8, 12), (1, 2), strict=True)
    )
    return first, second


def probabilities(models: Path | Sequence[Path], path: Path) -> dict[str, float]:
    (found,) = pacavit.predict(models, path, top_k=3)
    assert isinstance(found, ImagePrediction)
    return {each.name: each.probability for each in found.top}


def test_probabilities_are_averaged_by_the_names_of_classes(
    runs: tuple[Path, Path], images: Path
) -> None:
    path = images / "gray" / "03.png"
    alone = [probabilities(run, path) for run in runs]
    together = probabilities(runs, path)
    assert alone[0] != alone[1]
    assert together == {
        name: pytest.approx((alone[0][name] + alone[1][name]) / 2, abs=1e-6) for name in NAMES
    }
    assert probabilities(runs[:1], path) == alone[0]


def test_images_that_cannot_be_read_have_an_error(
    runs: tuple[Path, Path], images: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    predictor = load_predictor(runs, batch_size=2)
    good = [images / name / "00.png" for name in NAMES]
    found = predictor(iter([good[0], broken, *good[1:]]))
    assert [each.source for each in found] == [good[0], broken, *good[1:]]
    assert [each.error is None for each in found] == [True, False, True, True]
    assert found[1].record is None


def test_an_evaluation_has_the_mean_of_all_models(
    runs: tuple[Path, Path], images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "together"
    together = pacavit.evaluate(runs, out=out)
    alone = [pacavit.evaluate(run, out=tmp_path / run.name) for run in runs]

    def rows(folder: Path) -> list[dict[str, str]]:
        text = (folder / "predictions.csv").read_text()
        # The second run alone has the images of its first class first.
        return sorted(csv.DictReader(StringIO(text)), key=lambda row: row["true_class"])

    for mean, *others in zip(rows(out), *(rows(tmp_path / run.name) for run in runs), strict=True):
        assert {row["true_class"] for row in others} == {mean["true_class"]}
        values = [float(row["true_class_probability"]) for row in others]
        assert float(mean["true_class_probability"]) == pytest.approx(sum(values) / 2, abs=1e-5)
    correct = [row["true_class"] == row["predicted_class"] for row in rows(out)]
    assert together.accuracy == pytest.approx(sum(correct) / len(correct))
    assert together.num_images == alone[0].num_images == len(correct)
    assert [row.name for row in together.per_class] == list(NAMES)
    assert "calibration_error_uncalibrated" not in together.scores
    record = json.loads((out / "evaluation.json").read_text())
    assert [each["scores"]["accuracy"] for each in record["ensemble"]] == [
        each.accuracy for each in alone
    ]
    assert [Path(word).name for word in record["command"][1:3]] == ["--plugin", "tiny.py"]
    assert record["command"][3:7] == ["evaluate", str(runs[0]), "--ensemble", str(runs[1])]
    assert not (runs[0] / "evaluation-test").exists()


def test_an_ensemble_has_a_page_with_the_scores_of_its_members(
    runs: tuple[Path, Path], images: Path, tmp_path: Path
) -> None:
    together = pacavit.evaluate(runs, all_images=True, out=tmp_path / "together")
    alone = [
        pacavit.evaluate(run, all_images=True, out=tmp_path / str(number))
        for number, run in enumerate(runs)
    ]
    assert together.num_images == 60
    record = json.loads((tmp_path / "together" / "evaluation.json").read_text())
    assert record["split"] == "all"
    assert "--all" in record["command"]
    page = (tmp_path / "together" / "results.html").read_text()
    members = page.partition("Scores of the ensemble, and of each model alone")[2]
    rows = re.findall(r'<th scope="row"[^>]*>(.*?)</th>(.*?)</tr>', members, re.DOTALL)
    found = {name: re.findall(r"<td[^>]*>([\d.]+)</td>", cells)[0] for name, cells in rows[:3]}
    assert found == {
        "ensemble": f"{together.accuracy:.4f}",
        **{str(run): f"{each.accuracy:.4f}" for run, each in zip(runs, alone, strict=True)},
    }
    assert "Confusion matrix" in page
    assert f"--ensemble {runs[1]} --all" in page


def test_models_follow_the_order_of_the_first(runs: tuple[Path, Path]) -> None:
    own = load_model(runs[1])
    ensemble = Ensemble([load_model(run) for run in runs])
    assert {model.info.class_names for model in ensemble.models} == {NAMES}
    batch = Batch.unlabeled(torch.randn(5, 3, 12, 12))
    expected = own.classifier.predict(batch).probabilities[:, [1, 2, 0]]
    found = ensemble.models[1].classifier.predict(batch).probabilities
    torch.testing.assert_close(found, expected)


def test_other_images_for_a_model_are_refused(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = Ensemble([load_model(run) for run in runs])
    order = iter([0, 1])
    gather = _Collected.gather

    def gather_other(self: _Collected) -> tuple[Tensor, Predictions, Tensor]:
        indices, predictions, targets = gather(self)
        return indices, predictions, targets.roll(next(order))

    monkeypatch.setattr(_Collected, "gather", gather_other)
    with pytest.raises(DataError, match="does not find the same test images"):
        score_ensemble(ensemble, "test", device=torch.device("cpu"))


def test_models_of_other_classes_or_tasks_form_no_ensemble(runs: tuple[Path, Path]) -> None:
    first, second = map(load_model, runs)
    names = ("dark", "grey", "light")
    other = replace(second, info=replace(second.info, class_names=names))
    with pytest.raises(CheckpointError, match=r"'gray' is missing in the former; 'grey' is") as no:
        Ensemble([first, other])
    assert "\n" not in str(no.value)
    task = MultilabelTask(nn.Identity(), MultilabelConfig(), 3)
    with pytest.raises(CheckpointError, match="their tasks are 'multilabel' and 'classification'"):
        Ensemble([first, replace(second, task=task)])


def test_results_never_go_into_a_run(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(PacavitError, match=r"need a folder of their own: give out \(--out\)"):
        pacavit.evaluate(runs)
    for folder in (runs[0], runs[1] / "evaluation-test"):
        with pytest.raises(PacavitError, match="one of the ensemble; choose another folder"):
            pacavit.evaluate(runs, out=folder)
    (tmp_path / "file").touch()
    with pytest.raises(PacavitError, match="it is a file"):
        pacavit.evaluate(runs, out=tmp_path / "file")
    assert not (runs[1] / "evaluation-test").exists()


@pytest.mark.parametrize("models", [(), []])
def test_no_model_is_refused(models: Sequence[Path], images: Path) -> None:
    with pytest.raises(PacavitError, match="give at least one model"):
        pacavit.evaluate(models)
    with pytest.raises(PacavitError, match="give at least one model"):
        api.predict(models, images / "dark" / "00.png")


def test_ensembles_on_the_command_line(
    runs: tuple[Path, Path], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(runs[0]), "--ensemble", str(runs[1])]
    assert main(["evaluate", *words, "--out", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    assert "ensemble of" in captured.out
    assert f"{runs[1]} alone: accuracy" in captured.err
    assert f"wrote {tmp_path / 'out' / 'results.html'}" in captured.out
    assert main(["evaluate", *words, "--all", "--out", str(tmp_path / "all")]) == 0
    assert "60 images" in capsys.readouterr().out
    assert main(["predict", *words, str(images / "dark" / "00.png"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    expected = probabilities(runs, images / "dark" / "00.png")
    assert {each["class"]: each["probability"] for each in found["top"]} == pytest.approx(
        expected, abs=1e-6
    )


def test_augmented_results_on_other_data_are_apart_too(
    runs: tuple[Path, Path], images: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(images, tmp_path / "other")
    (other / "dark" / "00.png").unlink()
    plain = pacavit.evaluate(runs[0], data=other)
    augmented = pacavit.evaluate(runs[0], data=other, tta="flip")
    folder = runs[0] / "other-data"
    assert (plain.folder, augmented.folder) == (
        folder / "other-test",
        folder / "other-test-tta-flip",
    )
    together = pacavit.evaluate(runs, tta="flip", out=tmp_path / "out")
    assert together.folder == tmp_path / "out"
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert record["split"] == "test-tta-flip"
    assert record["command"][-4:] == ["--tta", "flip", "--out", str(tmp_path / "out")]
