"""Kill -9 at any moment costs nothing but the steps since the latest checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import pacavit
from pacavit.engine import checkpoint, train
from pacavit.engine.log import read_metrics
from pacavit.errors import CheckpointError
from pacavit.recipes import Recipe

MakeRecipe = Callable[..., Recipe]


class Moment(NamedTuple):
    """When a run dies: before its ``sync``-th sync, with ``saved`` steps in its checkpoints."""

    sync: int
    saved: int
    writes: str
    leftover: str


# Before training 3 syncs (recipe, environment, folder), 8 for each checkpoint (6 files, folder,
# its parent), 1 for the row of each epoch, 2 for the final weights: 128 with one every 5 steps.
MOMENTS = [
    Moment(1, 0, "the recipe", ".recipe.json.tmp"),
    Moment(2, 0, "the environment", ".environment.json.*.tmp"),
    Moment(6, 0, "the first checkpoint", "checkpoints/.tmp-step-1-*"),
    Moment(11, 1, "the name of a checkpoint", ""),
    Moment(36, 4, "the row of an epoch", ""),
    Moment(49, 5, "a later checkpoint", "checkpoints/.tmp-step-6-*"),
    Moment(127, 15, "the final weights", ".weights.safetensors.*.tmp"),
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
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    return Runs(recipe, whole, killed)


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.writes)
def test_a_killed_run_goes_on_to_the_same_bits(moment: Moment, runs: Runs) -> None:
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
