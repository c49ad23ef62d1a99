"""What ends a run from outside costs nothing but the steps since the latest checkpoint."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import pacavit
from pacavit.engine import train
from pacavit.engine.run.log import read_metrics
from pacavit.engine.weights import checkpoint
from pacavit.errors import CheckpointError
from pacavit.recipes import Recipe
from pacavit.tasks import ClassificationTask
from pacavit_cli.main import main

MakeRecipe = Callable[..., Recipe]


class Moment(NamedTuple):
    """When a run dies: before its ``sync``-th sync, with ``saved`` steps in its checkpoints."""

    sync: int
    saved: int
    writes: str
    leftover: str


# Before training 3 syncs (recipe, environment, folder), 9 for each checkpoint (7 files, folder,
# its parent), 1 for the row of each epoch, 2 for the final weights: 143 with one every 5 steps.
MOMENTS = [
    Moment(1, 0, "the recipe", ".recipe.json.tmp"),
    Moment(2, 0, "the environment", ".environment.json.*.tmp"),
    Moment(6, 0, "the first checkpoint", "checkpoints/.tmp-step-1-*"),
    Moment(12, 1, "the name of a checkpoint", ""),
    Moment(40, 4, "the row of an epoch", ""),
    Moment(54, 5, "a later checkpoint", "checkpoints/.tmp-step-6-*"),
    Moment(142, 15, "the final weights", ".weights.safetensors.*.tmp"),
]


class Runs(NamedTuple):
    """A run from beginning to end, and the folder of the killed ones of the same recipe."""

    recipe: Recipe
    whole: Path
    killed: Path


@pytest.fixture
def recipe(make_recipe: MakeRecipe) -> Recipe:
    return make_recipe(checkpoint_minutes=1e-9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kill")


@pytest.fixture
def runs(recipe: Recipe, folder: Path) -> Runs:
    """Made by the first test that asks."""
    whole, killed = folder / "whole", folder / "killed"
    if not whole.exists():
        train(recipe, whole, progress=False)
        (folder / "recipe.json").write_text(recipe.model_dump_json())
        done = subprocess.run(
            [
                sys.executable,
                str(Path(__file__).with_name("killed_runs.py")),
                str(folder / "recipe.json"),
                str(killed),
                str(torch.get_num_threads()),
                *(str(moment.sync) for moment in MOMENTS),
            ],
            env={**os.environ, "PYTHONPATH": str(Path(pacavit.__path__[0]).parent)},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
    return Runs(recipe, whole, killed)


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.writes)
def test_a_killed_run_resumes_to_the_same_bits(moment: Moment, runs: Runs) -> None:
    out = runs.killed / str(moment.sync)
    newest = checkpoint.newest(out / "checkpoints")
    assert (newest.name if newest else "step-0") == f"step-{moment.saved}"
    assert not moment.leftover or list(out.glob(moment.leftover))
    resume = (out / "recipe.json").exists()
    if not resume:
        with pytest.raises(CheckpointError, match="no run to resume"):
            train(runs.recipe, out, resume=True, progress=False)
    torch.manual_seed(1234)
    train(runs.recipe, out, resume=resume, progress=False)
    weights = [run / "weights.safetensors" for run in (runs.whole, out)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert [row["epoch"] for row in read_metrics(out)] == [1, 2, 3]
    assert {path.name for path in out.iterdir()} == {path.name for path in runs.whole.iterdir()}
    kept = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert kept == ["step-14", "step-15"]


def fill_disk(out: Path) -> None:
    """No file may grow beyond 2000 bytes from now on: writes fail as they do on a full disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))


def empty_disk(out: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def take_folder_away(out: Path) -> None:
    """A file in its place fails writes for every user; permissions do not for root."""
    (out / "checkpoints").rename(out.with_name("elsewhere"))
    (out / "checkpoints").write_text("")


def put_folder_back(out: Path) -> None:
    (out / "checkpoints").unlink()
    out.with_name("elsewhere").rename(out / "checkpoints")


@pytest.mark.parametrize(
    ("fail", "repair", "reason"),
    [
        (fill_disk, empty_disk, "File too large"),
        (take_folder_away, put_folder_back, "File exists"),
    ],
)
def test_a_checkpoint_that_cannot_be_written_is_one_line_and_loses_nothing(
    fail: Callable[[Path], None],
    repair: Callable[[Path], None],
    reason: str,
    runs: Runs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, count, forward = tmp_path / "run", 0, ClassificationTask.forward
    command = ["train", str(runs.whole / "recipe.json"), "--out", str(out)]

    def failing(self: ClassificationTask, batch: Any) -> dict[str, Tensor]:
        nonlocal count
        count += 1
        if count == 7:
            fail(out)
        return forward(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "forward", failing)
        try:
            assert main(command) == 2
        finally:
            repair(out)
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    for part in ("error: cannot write", "step-7", reason, "intact"):
        assert part in error
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-5", "step-6"]
    assert main([*command, "--resume"]) == 0
    weights = [run / "weights.safetensors" for run in (runs.whole, out)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
