"""Two processes on the CPU, started by torchrun, against one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import pacavit
from pacavit.engine import train
from pacavit.engine.distributed import World
from pacavit.engine.log import read_metrics
from pacavit.errors import CheckpointError
from pacavit.recipes import Recipe, parse

MakeRecipe = Callable[..., Recipe]

# Without BatchNorm and dropout; the last batch of 8 validation images has 5: 3 and 2.
PLAIN: dict[str, Any] = {"name": "tiny_net", "options": {"norm": False, "drop": 0.0}}
NOISY: dict[str, Any] = {"name": "tiny_net"}
BLOCKS: dict[str, Any] = {
    "name": "pacavit_nano",
    "num_clusters": [4, 2, 0],
    "options": {"embed_dims": [16, 16, 32], "num_heads": [2, 2, 2], "stem_dims": [8, 16]},
}
TRAIN: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 10,
    "eval_batch_size": 8,
    "lr": 0.02,
    "clip": 1.0,
    "ema": 0.9,
    "device": "cpu",
}
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ddp": (PLAIN, {}),
    "ddp_cut": (PLAIN, {"micro_batch": 2}),
    "fsdp": (PLAIN, {"parallel": "fsdp"}),
    "fsdp_cut": (PLAIN, {"parallel": "fsdp", "micro_batch": 2}),
    # Adam divides by the size of a gradient and so blows up the rounding of small ones.
    "ddp_blocks": (BLOCKS, {"optimizer": "sgd"}),
    "fsdp_blocks": (BLOCKS, {"optimizer": "sgd", "parallel": "fsdp"}),
    "ddp_noisy": (NOISY, {}),
    "ddp_noisy_stopped": (NOISY, {}),
    "fsdp_noisy": (NOISY, {"parallel": "fsdp"}),
    "fsdp_noisy_stopped": (NOISY, {"parallel": "fsdp"}),
    "ddp_stopped": (PLAIN, {}),
    "fsdp_stopped": (PLAIN, {"parallel": "fsdp"}),
    "ddp_failing": (PLAIN, {}),
}
WHOLE = [name for name in RUNS if "ing" not in name and "stopped" not in name]


def recipe(name: str) -> Recipe:
    model, changes = RUNS[name]
    return parse(
        {
            "name": "tiny",
            "task": {"augment": {"flip": "random", "shift": 1}},
            "data": {"name": "tiny-stripes", "val_size": 13},
            "model": model,
            "train": TRAIN | changes,
        },
        name,
    )


def torchrun(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    source = str(Path(pacavit.__path__[0]).parent)
    script = Path(__file__).with_name("several_runs.py")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [sys.executable, *launcher, str(script), str(folder), *words],
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The folder of all runs, and what the processes printed."""
    folder = tmp_path_factory.mktemp("runs")
    for name in RUNS:
        (folder / f"{name}.json").write_text(recipe(name).model_dump_json())
    done = torchrun(
        folder,
        *(f"train:{name}" for name in WHOLE),
        "train:ddp",  # refused: the run exists
        *(f"stop:{name}" for name in RUNS if "stopped" in name),
        *(f"resume:{name}_stopped" for name in ("ddp_noisy", "fsdp_noisy")),
        "blind:ddp_failing",
        "nan:ddp_failing",
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout, done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same plain run in this process."""
    return train(recipe("ddp"), tmp_path_factory.mktemp("alone") / "run", progress=False)


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "weights.safetensors")


def names(run: Path) -> list[str]:
    """Of everything in a run folder but what TensorBoard and the command line add."""
    found = (path.relative_to(run) for path in run.rglob("*"))
    return sorted(
        str(path) for path in found if path.suffix != ".png" and path.parts[0] != "tensorboard"
    )


def check_equal_runs(run: Path, other: Path) -> None:
    """Losses, scores and weights agree up to rounding."""
    rows, others = read_metrics(run), read_metrics(other)
    assert len(rows) == len(others) == 2
    for row, expected in zip(rows, others, strict=True):
        for key in row.keys() - {"elapsed", "images_per_second"}:
            assert row[key] == pytest.approx(expected[key], rel=1e-4, abs=1e-6), key
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["ddp", "ddp_cut", "fsdp", "fsdp_cut"])
def test_two_processes_train_like_one(name: str, runs: tuple[Path, str, str], alone: Path) -> None:
    folder, _, _ = runs
    check_equal_runs(folder / name, alone)
    assert names(folder / name) == names(alone)


def test_sharded_blocks_train_like_copies(runs: tuple[Path, str, str]) -> None:
    folder, _, _ = runs
    check_equal_runs(folder / "fsdp_blocks", folder / "ddp_blocks")


def test_micro_batches_on_one_process_change_nothing(alone: Path, tmp_path: Path) -> None:
    check_equal_runs(train(recipe("ddp_cut"), tmp_path / "run", progress=False), alone)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_resume_with_as_many_processes_gives_the_same_bits(
    kind: str, runs: tuple[Path, str, str]
) -> None:
    folder, _, _ = runs
    whole, parts = (folder / f"{kind}_noisy{end}" for end in ("", "_stopped"))
    assert (whole / "weights.safetensors").read_bytes() == (
        parts / "weights.safetensors"
    ).read_bytes()
    generators = load_file(whole / "checkpoints/step-10/rng.safetensors")
    assert not torch.equal(generators["cpu"], generators["process-1.cpu"])


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_one_process_goes_on_where_two_stopped(
    kind: str, runs: tuple[Path, str, str], alone: Path
) -> None:
    folder, _, _ = runs
    name = f"{kind}_stopped"
    saved = {path.name for path in (folder / name / "checkpoints").iterdir()}
    assert saved == {"step-5", "step-7"}
    check_equal_runs(train(recipe(name), folder / name, resume=True, progress=False), alone)


def test_only_the_first_process_prints(runs: tuple[Path, str, str]) -> None:
    folder, out, err = runs
    for name in WHOLE:
        assert out.count(f"trained model in {folder / name};") == 1
    assert out.count("epoch 1/2") == len(RUNS)
    assert err.count("interrupted: stopped after step 7 of 10") == 4
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3, err


def test_what_fails_on_one_process_fails_on_all_and_is_told_once(
    runs: tuple[Path, str, str],
) -> None:
    folder, _, err = runs
    exists, blind, diverged = (line for line in err.splitlines() if line.startswith("error: "))
    assert "holds a run" in exists
    assert blind == "error: no images here"
    assert "the loss is nan in step 7" in diverged
    assert "step-5 is intact" in diverged
    for name in ("ddp.train", "ddp_failing.blind", "ddp_failing.nan"):
        assert [(folder / f"{name}.{rank}").read_text() for rank in (0, 1)] == ["2", "2"]


def test_a_process_alone_agrees_with_itself() -> None:
    world = World()
    assert world.is_main
    assert world.any(True, False) == (True, False)
    assert torch.equal(world.mean(torch.ones(2)), torch.ones(2))
    world.check_same_step(3)
    with pytest.raises(CheckpointError, match="broken"), world.together():
        raise CheckpointError("broken")
