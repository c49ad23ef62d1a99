from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pacavit import recipes
from pacavit.data import DATASETS, DataSource, ImageSet, Split
from pacavit.engine import load_model, train
from pacavit.engine.run.log import read_metrics
from pacavit.errors import (
    CheckpointError,
    Interrupted,
    PacavitError,
    RecipeError,
    UnknownNameError,
)
from pacavit.recipes import Recipe, io
from pacavit.tasks import ClassificationTask

MakeRecipe = Callable[..., Recipe]


@contextmanager
def at_step(
    monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]
) -> Iterator[None]:
    """Do something in the middle of the ``number``-th training step from now."""
    count = 0
    forward = ClassificationTask.forward

    def counting(self: ClassificationTask, batch: Any) -> dict[str, Tensor]:
        nonlocal count
        count += 1
        losses = forward(self, batch)
        if count == number:
            act()
        return losses

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "forward", counting)
        yield


def crash() -> None:
    raise RuntimeError("the power failed")


def test_a_run_learns_and_leaves_a_complete_folder(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "checkpoints",
        "environment.json",
        "metrics.jsonl",
        "recipe.json",
        "tensorboard",
        "weights.safetensors",
    }
    rows = read_metrics(finished)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [5, 10, 15]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert 0 < rows[0]["elapsed"] < rows[-1]["elapsed"]
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == [
        "step-10",
        "step-15",
    ]
    assert json.loads((finished / "environment.json").read_text())["versions"]["torch"]
    assert load_model(finished).metrics["val_accuracy"] == rows[-1]["val_accuracy"]


@pytest.mark.parametrize("step", [1, 4, 5, 6, 13])
@pytest.mark.parametrize("how", ["signal", "crash"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resume_gives_the_same_bits(
    how: str,
    step: int,
    optimizer: str,
    make_recipe: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options: dict[str, Any] = {"fused": True} if optimizer == "adamw" else {}
    # Checkpoints after every step, so that a crash loses one step only.
    recipe = make_recipe(optimizer=optimizer, optimizer_options=options, checkpoint_minutes=1e-9)
    whole = train(recipe, tmp_path / "whole", progress=False)
    parts = tmp_path / "parts"
    error: type[Exception]
    if how == "signal":
        stop, error = (lambda: os.kill(os.getpid(), signal.SIGTERM)), Interrupted
    else:
        stop, error = crash, RuntimeError
    with at_step(monkeypatch, step, stop), pytest.raises(error):
        train(recipe, parts, progress=False)
    torch.manual_seed(1234)
    train(recipe, parts, resume=True, progress=False)
    files = [run / "weights.safetensors" for run in (whole, parts)]
    assert files[0].read_bytes() == files[1].read_bytes()
    for name in ("model", "ema", "optimizer", "rng"):
        one, other = (
            load_file(run / f"checkpoints/step-15/{name}.safetensors") for run in (whole, parts)
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name
    wall = {"elapsed", "elapsed_cpu", "images_per_second"}
    rows = [
        [{key: row[key] for key in row.keys() - wall} for row in read_metrics(run)]
        for run in (whole, parts)
    ]
    assert rows[0] == rows[1]


def test_resume_gives_the_same_bits_for_what_ships(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = recipes.load("cifar10_nano").train
    sizes = {"embed_dims": [16, 16, 32], "num_heads": [2, 2, 2], "stem_dims": [8, 16]}
    recipe = make_recipe(
        model={"name": "pacavit_nano", "num_clusters": [4, 2, 0], "options": sizes},
        epochs=2,
        optimizer=shipped.optimizer,
        optimizer_options=shipped.optimizer_options,
        lr_scales=shipped.lr_scales,
        precision="bf16",
        clip=1.0,
        ema=shipped.ema,
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(recipe, whole, progress=False)
    with (
        at_step(monkeypatch, 7, lambda: os.kill(os.getpid(), signal.SIGTERM)),
        pytest.raises(Interrupted),
    ):
        train(recipe, parts, progress=False)
    torch.manual_seed(1234)
    train(recipe, parts, resume=True, progress=False)
    files = [run / "weights.safetensors" for run in (whole, parts)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_interrupted_run_says_how_to_resume_and_is_usable(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    out = tmp_path / "run"
    with (
        at_step(monkeypatch, 7, lambda: os.kill(os.getpid(), signal.SIGINT)),
        pytest.raises(Interrupted, match=r"stopped after step 7 of 15; repeat .* --resume"),
    ):
        train(make_recipe(), out, progress=False)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    loaded = load_model(out)
    assert loaded.path == out / "checkpoints" / "step-7" / "ema.safetensors"
    assert not loaded.task.training


def test_resuming_a_finished_run_changes_nothing(
    finished: Path, make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in finished.rglob("*")}

    before = files()
    assert train(make_recipe(), finished, resume=True) == finished
    assert files() == before
    told = capsys.readouterr().out
    assert "is finished" in told
    assert "trained model" not in told


def test_a_resumed_run_keeps_the_facts_of_its_first_session(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with at_step(monkeypatch, 7, crash), pytest.raises(RuntimeError):
        train(make_recipe(), out, progress=False)
    (out / "environment.json").write_text("as it was")
    train(make_recipe(), out, resume=True, progress=False)
    assert (out / "environment.json").read_text() == "as it was"


def with_root(recipe: Recipe, root: Path) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": root})})


def test_resuming_uses_the_data_folder_of_the_run(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, recipe = tmp_path / "run", make_recipe()
    with at_step(monkeypatch, 7, crash), pytest.raises(RuntimeError):
        train(with_root(recipe, tmp_path / "data"), out, progress=False)
    with at_step(monkeypatch, 1, crash), pytest.raises(RuntimeError):
        train(recipe, out, resume=True, progress=False)
    assert io.load(out).data.root == tmp_path / "data"
    train(with_root(recipe, tmp_path / "moved"), out, resume=True, progress=False)
    assert io.load(out).data.root == tmp_path / "moved"


def test_resuming_on_other_data_is_refused(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, recipe = tmp_path / "run", make_recipe()
    with at_step(monkeypatch, 7, crash), pytest.raises(RuntimeError):
        train(with_root(recipe, tmp_path / "data"), out, progress=False)
    source = DATASETS.get("tiny-stripes")
    other = dataclasses.replace(source().info, version="another copy")
    monkeypatch.setattr(source, "info", other)
    with pytest.raises(CheckpointError, match="version was 'made by the tests'") as caught:
        train(with_root(recipe, tmp_path / "moved"), out, resume=True, progress=False)
    assert "\n" not in str(caught.value)
    assert io.load(out).data.root == tmp_path / "data"


def test_an_epoch_that_was_logged_but_not_saved_is_logged_once(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("pacavit.engine.weights.checkpoint.save", lambda *args: crash())
        with pytest.raises(RuntimeError):
            train(make_recipe(), out, progress=False)
    assert [row["epoch"] for row in read_metrics(out)] == [1]
    train(make_recipe(), out, resume=True, progress=False)
    assert [row["epoch"] for row in read_metrics(out)] == [1, 2, 3]


def test_training_builds_before_it_reads_images_and_never_reads_the_test_images(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = DATASETS.get("tiny-stripes")
    load, splits = source.load, []

    def noting(self: DataSource, split: Split) -> ImageSet:
        splits.append(split)
        return load(self, split)

    monkeypatch.setattr(source, "load", noting)
    for wrong in (make_recipe(model={"name": "pacavit_nono"}), make_recipe(optimizer="adamww")):
        with pytest.raises(UnknownNameError):
            train(wrong, tmp_path / "no", progress=False)
    assert splits == []
    train(make_recipe(epochs=1), tmp_path / "run", progress=False)
    assert set(splits) == {"train", "val"}


def test_resume_before_the_first_checkpoint_starts_again(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with at_step(monkeypatch, 1, crash), pytest.raises(RuntimeError):
        train(make_recipe(), out, progress=False)
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        load_model(out)
    train(make_recipe(), out, resume=True, progress=False)
    assert len(read_metrics(out)) == 3


def test_resume_refuses_another_recipe_and_names_the_field(
    finished: Path, make_recipe: MakeRecipe
) -> None:
    with pytest.raises(RecipeError, match=r"train\.lr was 0\.02 and is now 0\.5"):
        train(make_recipe(lr=0.5), finished, resume=True, progress=False)


def test_folders_in_the_way_are_refused(
    finished: Path, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe, other, file = make_recipe(), tmp_path / "other", tmp_path / "file"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    file.write_text("")
    with pytest.raises(CheckpointError, match="--resume, --overwrite or another folder"):
        train(recipe, finished, progress=False)
    for overwrite in (False, True):
        with pytest.raises(CheckpointError, match="not changed"):
            train(recipe, other, overwrite=overwrite, progress=False)
    with pytest.raises(CheckpointError, match="is a file"):
        train(recipe, file, progress=False)
    with pytest.raises(CheckpointError, match="no run to resume"):
        train(recipe, tmp_path / "new", resume=True, progress=False)
    with pytest.raises(CheckpointError, match="not both"):
        train(recipe, finished, resume=True, overwrite=True, progress=False)
    assert (other / "thesis.txt").exists()


def test_overwrite_replaces_a_run_but_not_for_a_broken_recipe(
    finished: Path, make_recipe: MakeRecipe
) -> None:
    with pytest.raises(UnknownNameError, match="model"):
        train(make_recipe(model={"name": "pacavit_nono"}), finished, overwrite=True, progress=False)
    assert (finished / "weights.safetensors").exists()
    train(make_recipe(epochs=1), finished, overwrite=True, progress=False)
    assert len(read_metrics(finished)) == 1
    assert [path.name for path in (finished / "checkpoints").iterdir()] == ["step-5"]


def test_a_network_that_does_not_suit_the_images_is_refused_first(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: torch.nn.Module, x: Tensor) -> Tensor:
        raise RuntimeError("no such size")

    monkeypatch.setattr(torch.nn.BatchNorm2d, "forward", failing)
    with pytest.raises(RecipeError, match="8 x 8 images: RuntimeError: no such size"):
        train(make_recipe(), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_stops_the_run(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, forward, count = tmp_path / "run", ClassificationTask.forward, 0

    def failing(self: ClassificationTask, batch: Any) -> dict[str, Tensor]:
        nonlocal count
        count += 1
        losses = forward(self, batch)
        return {"loss": losses["loss"] * (math.nan if count == 8 else 1.0)}

    monkeypatch.setattr(ClassificationTask, "forward", failing)
    with pytest.raises(PacavitError, match=r"the loss is nan in step 8; .*step-5 is intact"):
        train(make_recipe(), out, progress=False)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-5"]


def test_weights_that_are_no_numbers_are_never_saved(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = torch.optim.AdamW.step

    def failing(self: torch.optim.AdamW) -> None:
        step(self)
        self.param_groups[0]["params"][0].data.fill_(math.inf)

    monkeypatch.setattr(torch.optim.AdamW, "step", failing)
    with pytest.raises(PacavitError, match="weights are not finite after step 1"):
        train(make_recipe(batch_size=50, epochs=5), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_without_average_clip_or_fp32(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(ema=None, clip=1.0, precision="bf16", progressive=[[0.5, 6]])
    out = train(recipe, tmp_path / "run", progress=False)
    checkpoint = out / "checkpoints" / "step-15"
    assert not (checkpoint / "ema.safetensors").exists()
    model, weights = (
        load_file(path) for path in (checkpoint / "model.safetensors", out / "weights.safetensors")
    )
    assert all(torch.equal(model[name], weights[name]) for name in weights)
    assert model["conv.weight"].dtype == torch.float32


def test_progressive_sizes_are_used(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    forward = ClassificationTask.forward

    def noting(self: ClassificationTask, batch: Any) -> dict[str, Tensor]:
        sizes.append(batch.images.shape[-1])
        return forward(self, batch)

    monkeypatch.setattr(ClassificationTask, "forward", noting)
    recipe = make_recipe(epochs=4, batch_size=50, progressive=[[0.25, 4], [0.5, 6]])
    train(recipe, tmp_path / "run", progress=False)
    assert sizes == [4, 6, 8, 8]


def test_a_batch_larger_than_the_data_is_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"train\.batch_size 51 .* 50 training images"):
        train(make_recipe(batch_size=51), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_line_an_epoch_where_there_is_no_terminal(
    make_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(make_recipe(epochs=2), tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:-4] == [
        "reading tiny-stripes",
        "data: made by the tests; stored with 8 x 8 pixels, network input 8 x 8",
        "images: 50 train, 12 val",
        "  class   train  val",
        "  row        17    4",
        "  column     17    4",
        "  none       16    4",
        f"model: tiny_net, 267 parameters, on cpu ({threads()}), fp32",
        "training: 2 epochs of 5 steps of 10 images",
    ]
    for part in ("epoch 2/2", "loss ", "accuracy ", "images/s", "0:00 left"):
        assert part in lines[-3]
    assert lines[-2].startswith("temperature ")
    assert lines[-1].startswith("trained model in ")


def threads() -> str:
    number = torch.get_num_threads()
    return "1 thread" if number == 1 else f"{number} threads"


@pytest.mark.parametrize("mode", ["resume", "overwrite"])
def test_two_sessions_do_not_train_in_one_folder(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    out, refused = tmp_path / "run", []

    def start_another() -> None:
        with pytest.raises(CheckpointError, match="another process is training") as caught:
            train(make_recipe(), out, **{mode: True}, progress=False)
        refused.append(caught.value)

    with at_step(monkeypatch, 7, start_another):
        train(make_recipe(), out, progress=False)
    assert refused
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    train(make_recipe(), out, overwrite=True, progress=False)
