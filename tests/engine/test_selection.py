"""The epoch whose weights a run keeps, and early stopping."""

import math
import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pacavit.api.training import _report_training
from pacavit.engine import train
from pacavit.engine.evaluate import Measurement, measure
from pacavit.engine.run.log import read_metrics
from pacavit.engine.selection import describe_outcome, has_ended, is_better, is_finished
from pacavit.engine.weights.load import load_model
from pacavit.errors import CheckpointError, Interrupted
from pacavit.recipes import Recipe
from pacavit.recipes.schema import TrainConfig
from pacavit.report.publishing.packaging import run_facts

SCORES = [0.25, 0.75, 0.5, 0.75, 0.625, 0.875, 0.5]


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation accuracies as in SCORES, whatever the weights."""

    def scripted(task: Any, loader: Any, *arguments: Any, **options: Any) -> Measurement:
        found = measure(task, loader, *arguments, **options)
        epoch = len(read_metrics(Path(os.environ["RUN"])))
        return found._replace(
            metrics={**found.metrics, "accuracy": torch.tensor(SCORES[epoch], dtype=torch.float64)}
        )

    monkeypatch.setattr(import_module("pacavit.engine.trainer"), "measure", scripted)


def run(recipe: Recipe, out: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Path:
    monkeypatch.setenv("RUN", str(out))
    return train(recipe, out, progress=False, **options)


def same(one: Path, other: Path) -> bool:
    ours, theirs = load_file(one), load_file(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.usefixtures("scored")
@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_weights_of_the_best_epoch_are_kept(
    ema: float | None, make_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"ema": ema, "epochs": 4, "keep_checkpoints": 9}
    last = run(make_recipe(**settings), tmp_path / "last", monkeypatch)
    best = run(make_recipe(**settings, keep="best"), tmp_path / "best", monkeypatch)
    name = "model.safetensors" if ema is None else "ema.safetensors"
    second = last / "checkpoints" / "step-10" / name  # the first of the two best epochs
    assert same(best / "weights.safetensors", second)
    assert not same(last / "weights.safetensors", second)
    assert load_model(best).metrics["val_accuracy"] == 0.75
    # The run itself went on as if nothing was kept.
    for end in ("model", "optimizer", "rng"):
        paths = [each / "checkpoints" / "step-20" / f"{end}.safetensors" for each in (best, last)]
        assert same(*paths)


@pytest.mark.usefixtures("scored")
def test_a_run_stops_when_its_patience_is_exhausted(
    make_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(epochs=7, patience=3)
    out = run(recipe, tmp_path / "run", monkeypatch)
    rows = read_metrics(out)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]  # epoch 4 only equals the best
    assert same(out / "weights.safetensors", out / "checkpoints" / "step-25" / "ema.safetensors")
    # The rate decreases as if all epochs would follow.
    whole = run(make_recipe(epochs=7), tmp_path / "whole", monkeypatch)
    assert [row["lr"] for row in rows] == [row["lr"] for row in read_metrics(whole)][:5]
    assert run_facts(out, load_model(out)).outcome == (
        "stopped after epoch 5 of 7: no better validation accuracy for 3 epochs (train.patience)",
        "kept the weights of the last epoch, 5 (train.keep)",
    )


@pytest.mark.usefixtures("scored")
@pytest.mark.parametrize("step", [3, 10, 14, 21, 24])
def test_a_resumed_run_stops_at_the_same_epoch_with_the_same_bits(
    step: int, make_recipe: Any, stop_at: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(epochs=7, patience=3, keep="best", keep_checkpoints=1)
    whole = run(recipe, tmp_path / "whole", monkeypatch)
    parts = tmp_path / "parts"
    with stop_at(step), pytest.raises(Interrupted):
        run(recipe, parts, monkeypatch)
    if step > 10:
        assert load_model(parts).path.name == "best.safetensors"
    run(recipe, parts, monkeypatch, resume=True)
    assert len(read_metrics(parts)) == len(read_metrics(whole)) == 5
    for name in ("weights", "checkpoints/step-25/best", "checkpoints/step-25/optimizer"):
        files = [each / f"{name}.safetensors" for each in (whole, parts)]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.usefixtures("scored")
def test_log_and_report_say_what_was_kept_and_why_the_run_ended(
    make_recipe: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    monkeypatch.setenv("RUN", str(out))
    train(make_recipe(epochs=7, patience=1, keep="best"), out)
    lines = capsys.readouterr().out.splitlines()
    stopped = (
        "stopped after epoch 3 of 7: no better validation accuracy for 1 epoch (train.patience)"
    )
    kept = "kept the weights of epoch 2, with the best validation accuracy, 0.7500 (train.keep)"
    assert lines[-3:-1] == [stopped, kept]
    _report_training(out, progress=False)
    page = re.sub(r"\s+", " ", (out / "report.html").read_text(encoding="utf-8"))
    for text in (stopped, kept):
        assert f"{text[0].upper()}{text[1:]}." in page
    assert "not finished" not in page


def rows(*scores: float) -> list[dict[str, float]]:
    return [{"val_mAP": score} for score in scores]


def config(**settings: Any) -> TrainConfig:
    return TrainConfig.model_validate({"epochs": 5, "batch_size": 1, "lr": 0.1, **settings})


def test_when_a_run_has_ended() -> None:
    assert not has_ended(4, 1, config())
    assert has_ended(5, 5, config())
    assert not has_ended(2, 1, config(patience=2))
    assert has_ended(3, 1, config(patience=2))
    assert has_ended(2, None, config(patience=2))  # no epoch had a score
    assert is_finished(rows(0.5, 0.25, 0.5), "mAP", config(patience=2))
    assert not is_finished(rows(0.5, 0.25, 0.75), "mAP", config(patience=2))


def test_a_score_that_is_no_number_is_never_the_best() -> None:
    assert is_better(0.0, None)
    assert not is_better(math.nan, None)
    assert not is_better(math.nan, 0.5)
    assert not is_better(0.5, 0.5)


def test_nothing_is_said_of_what_was_not_asked_for() -> None:
    assert describe_outcome(rows(0.1, 0.3, 0.2, 0.1, 0.1), "mAP", config()) == []
    assert describe_outcome(rows(0.5, 0.25), "mAP", config(patience=1)) == [
        "stopped after epoch 2 of 5: no better validation mAP for 1 epoch (train.patience)",
        "kept the weights of the last epoch, 2 (train.keep)",
    ]


def test_an_interrupted_run_is_unfinished(make_recipe: Any, stop_at: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with stop_at(7), pytest.raises(Interrupted):
        train(make_recipe(patience=3), out, progress=False)
    with pytest.raises(CheckpointError, match="not finished: 1 of 3 epochs"):
        run_facts(out, load_model(out))
