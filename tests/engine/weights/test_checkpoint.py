from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pacavit.engine import build, optim
from pacavit.engine.weights import checkpoint
from pacavit.engine.weights.checkpoint import Progress, TrainState
from pacavit.errors import CheckpointError
from pacavit.recipes import Recipe

MakeRecipe = Callable[..., Recipe]


def make_state(recipe: Recipe, step: int = 0) -> TrainState:
    info = build.data_source(recipe).info
    model = build.model(recipe.model, 3)
    optimizer = optim.create_optimizer(model, recipe.train)
    return TrainState(model, None, optimizer, Progress(step=step), recipe, info)


def advance(state: TrainState) -> None:
    """One optimiser step with random images."""
    state.model(torch.randn(2, 3, 8, 8)).square().sum().backward()
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.progress.step += 1


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: a real failing write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd", "lamb"])
def test_save_and_load_restore_everything(
    optimizer: str, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe(optimizer=optimizer)
    state, other = make_state(recipe), make_state(recipe)
    advance(state)
    path = checkpoint.save(tmp_path, state, keep=2)
    advance(state)
    checkpoint.load(path, other)
    assert other.progress == Progress(step=1)
    advance(other)  # draws the same images: the generator was restored, too
    for name, value in state.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


def test_only_the_newest_are_kept_in_numeric_order(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    state = make_state(make_recipe())
    assert checkpoint.newest(tmp_path) is None
    for step in (9, 10, 100):
        state.progress.step = step
        checkpoint.save(tmp_path, state, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-100"]
    newest = checkpoint.newest(tmp_path)
    assert newest is not None
    assert newest.name == "step-100"


def test_a_full_disk_keeps_the_previous_checkpoint(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    state = make_state(make_recipe())
    first = checkpoint.save(tmp_path, state, keep=1)
    contents = {path.name: path.read_bytes() for path in first.iterdir()}
    state.progress.step = 1
    with full_disk(1000), pytest.raises(CheckpointError, match=r"cannot write .*step-1") as caught:
        checkpoint.save(tmp_path, state, keep=1)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0"]
    assert {path.name: path.read_bytes() for path in first.iterdir()} == contents
    assert checkpoint.save(tmp_path, state, keep=1).name == "step-1"


def test_what_a_killed_save_leaves_is_never_read_and_removed(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    (tmp_path / ".tmp-step-7-123").mkdir()
    (tmp_path / ".old-step-3").mkdir()
    (tmp_path / "step-9").mkdir()  # not ours: it holds no state
    assert checkpoint.newest(tmp_path) is None
    checkpoint.save(tmp_path, make_state(make_recipe()), keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0", "step-9"]


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "optimizer.safetensors",
        "optimizer.json",
        "rng.safetensors",
        "state.json",
    ],
)
def test_a_damaged_checkpoint_is_one_clear_line(
    name: str, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    state = make_state(make_recipe())
    advance(state)
    path = checkpoint.save(tmp_path, state, keep=1)
    os.truncate(path / name, 20)
    with pytest.raises(CheckpointError, match="step-1") as caught:
        checkpoint.load(path, state)
    assert "\n" not in str(caught.value)
    (path / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        checkpoint.load(path, state)


def test_state_keeps_the_memory_layout_of_parameters(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe()
    state, other = make_state(recipe), make_state(recipe)
    for each in (state, other):
        each.model.to(memory_format=torch.channels_last)
    advance(state)
    checkpoint.load(checkpoint.save(tmp_path, state, keep=1), other)
    weight = other.model.get_parameter("conv.weight")
    assert other.optimizer.state[weight]["exp_avg"].stride() == weight.stride()


def test_checkpoints_of_earlier_releases_are_resumed(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """They call the version of the data its copy, and know of one loss only."""
    state = make_state(make_recipe())
    advance(state)
    state.progress.batch, state.progress.loss_sum = 1, 0.5
    path = checkpoint.save(tmp_path, state, keep=1)
    numbers = json.loads((path / "state.json").read_text())
    del numbers["loss_sums"]
    (path / "state.json").write_text(json.dumps(numbers))
    with safe_open(path / "model.safetensors", framework="pt") as file:
        described = json.loads(file.metadata()["pacavit"])
    described["data"]["copy"] = described["data"].pop("version")
    tensors = load_file(path / "model.safetensors")
    save_file(tensors, path / "model.safetensors", {"pacavit": json.dumps(described)})
    other = make_state(make_recipe())
    checkpoint.load(path, other)
    assert other.progress == state.progress
    assert other.progress.mean_losses() == {"train_loss": 0.5}


def test_several_losses_are_summed_by_name() -> None:
    progress = Progress(batch=2)
    for a, b in ((1.0, 3.0), (2.0, 4.0)):
        progress.add_losses(a + b, {"a": a, "b": b})
    assert progress.mean_losses() == {
        "train_loss": 5.0,
        "train_loss_a": 1.5,
        "train_loss_b": 3.5,
    }
    progress.start_epoch()
    assert progress == Progress(epoch=1)
