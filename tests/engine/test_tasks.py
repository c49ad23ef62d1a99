"""A task that is no classification goes through a whole run, named in its recipe."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from torch import Tensor

from pacavit import api, recipes
from pacavit.data import Batch
from pacavit.engine import build, load_model, train
from pacavit.engine.distributed import World
from pacavit.engine.predictor import Predictor
from pacavit.engine.run.log import read_metrics
from pacavit.engine.trainer import Trainer
from pacavit.errors import CheckpointError, Interrupted, UnknownNameError
from pacavit.recipes import Recipe
from pacavit.tasks import TASKS

MakeRecipe = Callable[..., Recipe]
MakeGuess = Callable[..., Recipe]

# Without what makes chunks of a batch differ from the whole.
PLAIN: dict[str, Any] = {"options": {"norm": False, "drop": 0.0}}
LOSSES = ("train_loss", "train_loss_size", "train_loss_square")


@pytest.fixture
def guess(make_recipe: MakeRecipe) -> MakeGuess:
    """A recipe for the task of ``tiny.py``; keyword arguments replace fields of its training."""

    def make(**train: Any) -> Recipe:
        data = make_recipe(**{"epochs": 2, "model": PLAIN, **train}).model_dump(mode="json")
        return recipes.parse(data | {"task": {"name": "guess", "scale": 2.0}}, "test")

    return make


def test_another_task_trains_and_loads(guess: MakeGuess, tmp_path: Path) -> None:
    run = api.train(guess(), tmp_path / "run")
    assert 0 < read_metrics(run)[-1]["val_closeness"] <= 1
    assert (run / "curves.png").is_file()
    loaded = load_model(run)
    assert loaded.recipe == guess()
    assert type(loaded.task) is TASKS.get("guess")
    assert loaded.task.config.scale == 2.0


def test_another_task_is_evaluated(guess: MakeGuess, tmp_path: Path) -> None:
    run = api.train(guess(), tmp_path / "run")
    found = api.evaluate(run)
    loaded = load_model(run)
    images = build.data_source(loaded.recipe).load("test")
    (batch,) = build.eval_loader(loaded.recipe, images, loaded.info).epoch(0)
    off = (torch.tensor(loaded.task.predict(batch)) - batch.targets).abs().mean()
    assert found.task == "guess"
    assert found.scores == {"closeness": pytest.approx(float(1 / (1 + off)))}
    assert found.closeness == found.scores["closeness"]
    assert (found.per_class, dict(found.arrays), found.num_images) == ((), {}, 30)
    stored = json.loads((run / "evaluation-test" / "evaluation.json").read_text())
    assert stored["scores"] == found.scores
    assert (stored["per_class"], stored["arrays"], stored["task"]) == ([], {}, "guess")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "closeness" in page
    assert "Confusion" not in page


def test_another_task_predicts(guess: MakeGuess, tmp_path: Path) -> None:
    run = api.train(guess(), tmp_path / "run")
    files = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"]
    for value, file in zip((0, 200), files, strict=False):
        Image.new("RGB", (8, 8), (value, value, value)).save(file)
    files[2].write_text("no image")
    one, two, broken = api.predict(run, files)
    records = [found.record for found in Predictor(load_model(run))(files)]
    assert [each.to_dict() for each in (one, two)] == [
        {"path": str(file), "prediction": str(record), "error": None}
        for file, record in zip(files[:2], records, strict=False)
    ]
    assert records[0] != records[1]
    assert isinstance(records[0], float)
    assert broken.error is not None
    assert str(files[2]) in broken.error
    assert broken.to_dict()["prediction"] is None


def test_what_needs_a_classifier_is_refused_in_one_line(guess: MakeGuess, tmp_path: Path) -> None:
    run = api.train(guess(), tmp_path / "run")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    message = "was trained for the task 'guess' and does not classify images"
    with pytest.raises(CheckpointError, match=message) as caught:
        api.explain(run, tmp_path / "a.png", tmp_path / "out")
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=message):
        load_model(run).classifier  # noqa: B018


def test_a_run_whose_task_is_not_registered_is_refused(
    guess: MakeGuess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = api.train(guess(), tmp_path / "run")
    others = {name: kind for name, kind in TASKS._entries.items() if name != "guess"}
    monkeypatch.setattr(TASKS, "_entries", others)
    for source in (run, run / "weights.safetensors"):
        with pytest.raises(CheckpointError, match=r"plug-in tiny\.py .*unknown task 'guess'"):
            load_model(source)
    elsewhere = (run / "weights.safetensors").rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(UnknownNameError, match="unknown task 'guess'"):
        load_model(elsewhere)


def test_every_loss_is_logged(guess: MakeGuess, tmp_path: Path) -> None:
    run = train(guess(), tmp_path / "run", progress=False)
    rows = read_metrics(run)
    for row in rows:
        assert sorted(name for name in row if name.startswith("train_")) == sorted(LOSSES)
        total = row["train_loss_square"] + row["train_loss_size"]
        assert row["train_loss"] == pytest.approx(total, rel=1e-6)
        assert row["train_loss_size"] > 0
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    scalars = {
        name: [event.value for event in board.Scalars(f"train/{name}")]
        for name in ("loss", "loss_square", "loss_size")
    }
    assert len(scalars["loss"]) == 10
    for total, *parts in zip(*scalars.values(), strict=True):
        assert total == pytest.approx(sum(parts), rel=1e-5)
    means = [sum(scalars["loss_square"][first : first + 5]) / 5 for first in (0, 5)]
    assert [row["train_loss_square"] for row in rows] == pytest.approx(means, rel=1e-5)


def test_one_loss_has_no_second_name(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    run = train(make_recipe(epochs=1), tmp_path / "run", progress=False)
    (row,) = read_metrics(run)
    assert [name for name in row if name.startswith("train_")] == ["train_loss"]
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    names = [name for name in board.Tags()["scalars"] if name.startswith("train/")]
    assert sorted(names) == ["train/loss", "train/lr"]


@pytest.mark.parametrize("step", [3, 5, 7])
def test_a_resumed_run_logs_the_same_losses(
    guess: MakeGuess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    whole = train(guess(), tmp_path / "whole", progress=False)
    forward, count = TASKS.get("guess").forward, 0

    def stopping(self: Any, batch: Batch) -> dict[str, Tensor]:
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGTERM)
        losses: dict[str, Tensor] = forward(self, batch)
        return losses

    with monkeypatch.context() as patch:
        patch.setattr(TASKS.get("guess"), "forward", stopping)
        with pytest.raises(Interrupted):
            train(guess(), tmp_path / "parts", progress=False)
    parts = train(guess(), tmp_path / "parts", resume=True, progress=False)
    rows = [
        [{name: row[name] for name in (*LOSSES, "val_closeness")} for row in read_metrics(run)]
        for run in (whole, parts)
    ]
    assert rows[0] == rows[1]


def labeled(batch: Batch) -> int:
    """How many pixels of a batch count in the losses of the task."""
    return int(((batch.images[:, 0] > -0.2).sum((1, 2)) * (batch.targets < 2)).sum())


@pytest.mark.parametrize("micro_batch", [1, 3, 5])
def test_chunks_are_weighed_by_what_losses_are_averaged_over(
    guess: MakeGuess, tmp_path: Path, micro_batch: int
) -> None:
    options: dict[str, Any] = {"batch_size": 8, "optimizer": "sgd", "ema": None, "lr": 0.002}
    whole = train(guess(**options), tmp_path / "whole", progress=False)
    cut = train(guess(**options, micro_batch=micro_batch), tmp_path / "cut", progress=False)
    for row, expected in zip(read_metrics(cut), read_metrics(whole), strict=True):
        for name in (*LOSSES, "val_closeness"):
            assert row[name] == pytest.approx(expected[name], rel=1e-5), name
    ours, theirs = (load_file(run / "weights.safetensors") for run in (cut, whole))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6)


def test_the_loss_of_a_cut_batch_is_that_of_the_whole(guess: MakeGuess, tmp_path: Path) -> None:
    """Gradients and losses of one step, against the whole batch by hand."""
    recipe = guess(batch_size=8, micro_batch=3, optimizer="sgd")
    trainer = Trainer(recipe, tmp_path / "run", World())
    trainer.wrap()
    batch = next(trainer._train_loader(0).epoch(0))
    chunks = batch.chunk(trainer.num_chunks)
    assert [len(chunk) for chunk in chunks] == [3, 3, 2]
    assert len({labeled(chunk) for chunk in chunks}) == 3
    task = trainer.task.train()
    losses = task(batch)
    parameters = list(task.parameters())
    expected = torch.autograd.grad(losses["square"] + losses["size"], parameters)
    plain = torch.stack([task(chunk)["square"].detach() for chunk in chunks]).mean()
    assert float(plain) != pytest.approx(float(losses["square"].detach()), rel=1e-3)

    seen: list[Tensor] = []
    trainer.optimizer.register_step_pre_hook(
        lambda *_: seen.extend(parameter.grad.clone() for parameter in parameters)  # type: ignore[union-attr]
    )
    found = trainer._train_step(batch)
    assert trainer.loss_names == ("square", "size")
    assert found.tolist() == pytest.approx([float(loss.detach()) for loss in losses.values()])
    for gradient, value in zip(seen, expected, strict=True):
        torch.testing.assert_close(gradient, value, rtol=1e-4, atol=1e-7)


def test_a_batch_in_which_nothing_is_labeled_changes_nothing(
    guess: MakeGuess, tmp_path: Path
) -> None:
    recipe = guess(batch_size=8, micro_batch=3, optimizer="sgd", weight_decay=0.0)
    trainer = Trainer(recipe, tmp_path, World())
    trainer.wrap()
    before = [parameter.detach().clone() for parameter in trainer.task.parameters()]
    batch = Batch(torch.randn(8, 3, 8, 8), torch.full((8,), 2), torch.arange(8))
    assert trainer._train_step(batch).tolist() == [0, 0]
    for old, new in zip(before, trainer.task.parameters(), strict=True):
        assert torch.equal(old, new.detach())
