from __future__ import annotations

import json
import os
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pacavit.engine import build, optim
from pacavit.engine.distributed import World
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
    """One optimizer step with random images."""
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


def three_checkpoints(recipe: Recipe, folder: Path) -> list[Path]:
    state = make_state(recipe)
    paths = []
    for _ in range(3):
        advance(state)
        paths.append(checkpoint.save(folder, state, keep=3))
    return paths


def edit_optimizer(path: Path) -> None:
    numbers = json.loads((path / "optimizer.json").read_text())
    numbers["groups"][0]["lr"] = 123.0
    (path / "optimizer.json").write_text(json.dumps(numbers))


def swap_model(path: Path) -> None:
    shutil.copy(path.with_name("step-1") / "model.safetensors", path)


def empty_state(path: Path) -> None:
    (path / "state.json").write_text("{}")


def other_step(path: Path) -> None:
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "step": 2}))


def flip_a_bit(path: Path) -> None:
    data = bytearray((path / "rng.safetensors").read_bytes())
    data[-7] ^= 1
    (path / "rng.safetensors").write_bytes(data)


def remove_a_file(path: Path) -> None:
    (path / "optimizer.safetensors").unlink()


def make_a_pipe(path: Path) -> None:
    (path / "optimizer.json").unlink()
    os.mkfifo(path / "optimizer.json")


def nest_deeply(path: Path) -> None:
    (path / "manifest.json").write_text("[" * 100_000)


def rename(path: Path) -> None:
    path.rename(path.with_name("step-50"))


FAULTS: list[tuple[Callable[[Path], None], str]] = [
    (edit_optimizer, r"step-3/optimizer\.json is broken: it is not the file that was written"),
    (swap_model, r"step-3/model\.safetensors is broken"),
    (empty_state, r"step-3/state\.json is broken: it is truncated to 2 of \d+ bytes"),
    (other_step, r"step-3/state\.json is broken"),
    (flip_a_bit, r"step-3/rng\.safetensors is broken"),
    (remove_a_file, r"cannot read .*step-3/optimizer\.safetensors: No such file"),
    (make_a_pipe, r"cannot read .*step-3/optimizer\.json: not a regular file"),
    (nest_deeply, r"step-3/manifest\.json is broken: it is nested"),
    (rename, r"step-50 was written as the checkpoint of step 3, and was renamed"),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("damage", "message"), FAULTS, ids=[d.__name__ for d, _ in FAULTS])
def test_the_newest_intact_checkpoint_is_found(
    damage: Callable[[Path], None], message: str, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    first, second, third = three_checkpoints(make_recipe(), tmp_path)
    whole = checkpoint.newest_intact(tmp_path, World())
    assert whole == checkpoint.Intact(third)
    damage(third)
    found = checkpoint.newest_intact(tmp_path, World())
    assert found.path == second
    [warning] = found.warnings
    assert re.search(message, warning), warning
    for path in (first, second):
        empty_state(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.newest_intact(tmp_path, World())
    assert "(and 2 more)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_later_broken_checkpoints_are_set_aside_by_the_next_save(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe()
    _, second, third = three_checkpoints(recipe, tmp_path)
    swap_model(third)
    rename(third)
    state = make_state(recipe)
    checkpoint.load(second, state)
    advance(state)
    checkpoint.save(tmp_path, state, keep=3)
    names = ["broken-step-50", "step-1", "step-2", "step-3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert checkpoint.newest_intact(tmp_path, World()) == checkpoint.Intact(tmp_path / "step-3")


def test_checkpoints_of_earlier_releases_are_taken_with_a_warning(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    _, second, third = three_checkpoints(make_recipe(), tmp_path)
    for path in (second, third):
        (path / "manifest.json").unlink()
    found = checkpoint.newest_intact(tmp_path, World())
    assert found.path == third
    assert "cannot be verified" in found.warnings[0]
    rename(third)  # the step is known without a manifest, too
    found = checkpoint.newest_intact(tmp_path, World())
    assert found.path == second
    assert "its folder is named step-50" in found.warnings[0]


def test_the_weights_of_a_checkpoint_are_verified_alone(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    *_, third = three_checkpoints(make_recipe(), tmp_path)
    edit_optimizer(third)
    assert checkpoint.best_weights(third) == third / "model.safetensors"
    swap_model(third)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is broken: it is not"):
        checkpoint.best_weights(third)


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
