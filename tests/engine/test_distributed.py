"""Two processes on the CPU, started by torchrun, against one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import pacavit
from pacavit.data import FileImages
from pacavit.engine import build, load_model, train
from pacavit.engine.distributed import World
from pacavit.engine.run.log import read_metrics
from pacavit.errors import CheckpointError, RecipeError
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
LAYERS: dict[str, Any] = {  # without BatchNorm
    "name": "pacavit_tiny",
    "num_clusters": [2, 0],
    "options": {"embed_dims": [16, 32], "depths": [1, 1], "num_heads": [2, 2]},
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
    # Shards of 5 and 4 images.
    "fsdp_cut_odd": (PLAIN, {"parallel": "fsdp", "batch_size": 9, "micro_batch": 4}),
    # Shards of 6 and 4: two of 5 would part a pair.
    "ddp_mixed": (PLAIN, {}),
    # Adam divides by the size of a gradient and so blows up the rounding of small ones.
    "ddp_blocks": (BLOCKS, {"optimizer": "sgd"}),
    "fsdp_blocks": (BLOCKS, {"optimizer": "sgd", "parallel": "fsdp"}),
    # Wrapped anew when layers stop learning.
    "ddp_frozen": (LAYERS, {"optimizer": "sgd", "freeze": [[0.5, 2]], "whitening": 0.5}),
    "ddp_weighted": (PLAIN, {"class_weights": {"row": 4.0, "none": 0.25}, "micro_batch": 2}),
    # A task whose losses are means over pixels, of which some images have none that count.
    "ddp_pixels": (PLAIN, {}),
    "ddp_pixels_cut": (PLAIN, {"micro_batch": 2}),
    "fsdp_pixels_cut": (PLAIN, {"parallel": "fsdp", "micro_batch": 2}),
    "ddp_noisy": (NOISY, {}),
    "ddp_noisy_stopped": (NOISY, {}),
    "fsdp_noisy": (NOISY, {"parallel": "fsdp"}),
    "fsdp_noisy_stopped": (NOISY, {"parallel": "fsdp"}),
    "fsdp_damaged_stopped": (NOISY, {"parallel": "fsdp"}),
    "ddp_stopped": (PLAIN, {}),
    "fsdp_stopped": (PLAIN, {"parallel": "fsdp"}),
    "ddp_failing": (PLAIN, {}),
    "ddp_failing_disk": (PLAIN, {}),
    "ddp_failing_reader": (PLAIN, {}),
}
WHOLE = [name for name in RUNS if "ing" not in name and "stopped" not in name]


def recipe(name: str) -> Recipe:
    model, changes = RUNS[name]
    classification = {
        "augment": {"flip": "random", "shift": 1},
        "mix": {"mixup": 0.8, "cutmix": 1.0} if "mixed" in name else {},
    }
    return parse(
        {
            "name": "tiny",
            "task": {"name": "guess", "scale": 2.0} if "pixels" in name else classification,
            "data": {"name": "tiny-stripes", "val_size": 13},
            "model": model,
            "train": TRAIN | changes,
        },
        name,
    )


def files_recipe(root: Path) -> Recipe:
    """Of images in files, 8 of them for validation: a shard of 4 for each process."""
    return parse(
        {
            "name": "files",
            "task": {"image_size": 8},
            "data": {
                "name": "folder",
                "root": str(root),
                "val_size": 8,
                "num_workers": 0,
                "options": {"image_size": 8, "in_memory": False},
            },
            "model": PLAIN,
            "train": TRAIN | {"parallel": "fsdp"},
        },
        "files",
    )


def make_files(root: Path, broken: slice) -> Recipe:
    """60 images in two classes, some of those for validation broken; a recipe for them."""
    rng = np.random.default_rng(0)
    for low, name in ((0, "dark"), (150, "light")):
        (root / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(low, low + 100, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02}.png")
    made = files_recipe(root)
    images = build.data_source(made).load("val")
    assert isinstance(images, FileImages)
    for index in range(8)[broken]:
        images.path(index).write_bytes(b"no image")
    return made


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
    for name, broken in (("fsdp_files", slice(4, 8)), ("fsdp_unusable", slice(8))):
        made = make_files(folder / f"{name}_data", broken)
        (folder / f"{name}.json").write_text(made.model_dump_json())
    done = torchrun(
        folder,
        *(f"train:{name}" for name in WHOLE),
        "train:ddp",  # refused: the run exists
        *(f"stop:{name}" for name in RUNS if "stopped" in name),
        *(f"resume:{name}_stopped" for name in ("ddp_noisy", "fsdp_noisy")),
        "damaged:fsdp_damaged_stopped",
        "blind:ddp_failing",
        "lost:ddp_failing",
        "nan:ddp_failing",
        "full:ddp_failing_disk",
        "ended:ddp_failing_reader",
        "train:fsdp_files",
        "train:fsdp_unusable",
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
    added = ("tensorboard", "evaluation-val", "report.html")
    found = (path.relative_to(run) for path in run.rglob("*"))
    return sorted(
        str(path) for path in found if path.suffix != ".png" and path.parts[0] not in added
    )


def check_equal_runs(run: Path, other: Path) -> None:
    """Losses, scores and weights agree up to rounding."""
    rows, others = read_metrics(run), read_metrics(other)
    assert len(rows) == len(others) == 2
    for row, expected in zip(rows, others, strict=True):
        for key in row.keys() - {"elapsed", "elapsed_cpu", "images_per_second"}:
            assert row[key] == pytest.approx(expected[key], rel=1e-4, abs=1e-6), key
    check_equal_weights(run, other)
    temperatures = [load_model(path).task.temperature for path in (run, other)]
    assert temperatures[0] == pytest.approx(temperatures[1], rel=1e-2)


def check_equal_weights(run: Path, other: Path) -> None:
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["ddp", "ddp_cut", "fsdp", "fsdp_cut"])
def test_two_processes_train_like_one(name: str, runs: tuple[Path, str, str], alone: Path) -> None:
    folder, _, _ = runs
    check_equal_runs(folder / name, alone)
    assert names(folder / name) == names(alone)


@pytest.mark.parametrize("name", ["fsdp_cut_odd", "ddp_mixed", "ddp_weighted"])
def test_uneven_shards_train_like_one(
    name: str, runs: tuple[Path, str, str], tmp_path: Path
) -> None:
    check_equal_runs(runs[0] / name, train(recipe(name), tmp_path / "run", progress=False))


@pytest.fixture(scope="module")
def pixels_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the task with losses over pixels in this process, in whole batches."""
    out = tmp_path_factory.mktemp("pixels") / "run"
    return train(recipe("ddp_pixels"), out, progress=False)


@pytest.mark.parametrize("name", ["ddp_pixels", "ddp_pixels_cut", "fsdp_pixels_cut"])
def test_losses_are_means_over_what_is_labeled_on_all_processes(
    name: str, runs: tuple[Path, str, str], pixels_alone: Path
) -> None:
    check_equal_runs(runs[0] / name, pixels_alone)
    (first, _) = read_metrics(runs[0] / name)
    parts = first["train_loss_square"] + first["train_loss_size"]
    assert first["train_loss"] == pytest.approx(parts)


def test_a_shard_of_broken_images_stops_no_validation(
    runs: tuple[Path, str, str], tmp_path: Path
) -> None:
    folder, out, _ = runs
    made = files_recipe(folder / "fsdp_files_data")
    alone = train(made, tmp_path / "run", progress=False)
    check_equal_runs(folder / "fsdp_files", alone)
    assert out.count("4 images are left out") == 1
    for run in (folder / "fsdp_files", alone):
        assert len((run / "broken_images.txt").read_text().splitlines()) == 4


def test_sharded_blocks_train_like_copies(runs: tuple[Path, str, str]) -> None:
    folder, _, _ = runs
    check_equal_runs(folder / "fsdp_blocks", folder / "ddp_blocks")


def test_layers_stop_learning_in_all_processes(runs: tuple[Path, str, str], tmp_path: Path) -> None:
    alone = train(recipe("ddp_frozen"), tmp_path / "run", progress=False)
    together = runs[0] / "ddp_frozen"
    check_equal_weights(together, alone)
    losses = [[row["train_loss"] for row in read_metrics(run)] for run in (together, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


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


def test_two_processes_resume_before_a_broken_checkpoint(runs: tuple[Path, str, str]) -> None:
    folder, out, err = runs
    whole, parts = folder / "fsdp_noisy", folder / "fsdp_damaged_stopped"
    assert [(folder / f"{parts.name}.damaged.{rank}").read_text() for rank in (0, 1)] == ["0", "0"]
    assert (whole / "weights.safetensors").read_bytes() == (
        parts / "weights.safetensors"
    ).read_bytes()
    (warning,) = (line for line in (out + err).splitlines() if "optimizer.safetensors" in line)
    assert str(parts / "checkpoints" / "step-7") in warning


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_one_process_resumes_a_run_of_two(
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
    assert out.count("epoch 1/2") == len(RUNS) + 1  # that of files
    assert err.count("interrupted: stopped after step 7 of 10") == 5
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 8, err
    assert "Traceback" not in err


def test_an_error_of_one_process_is_raised_in_all_and_reported_once(
    runs: tuple[Path, str, str],
) -> None:
    folder, _, err = runs
    exists, blind, lost, diverged, full, *ended, unusable = (
        line for line in err.splitlines() if line.startswith("error: ")
    )
    assert "holds a run" in exists
    assert blind == "error: no images here"
    assert lost == "error: no data here"
    assert full == "error: the disk is full"
    # In the midst of a step nobody can be told; but who waits learns that the other is gone.
    other, own = sorted(ended)
    assert "another process of the run ended" in other
    assert own == "error: no more images"
    assert "no usable image to measure with: 8 images are left out" in unusable
    assert "the loss is nan in step 7" in diverged
    assert "step-5 is intact" in diverged
    for name in (
        "ddp.train",
        "ddp_failing.blind",
        "ddp_failing.lost",
        "ddp_failing.nan",
        "ddp_failing_disk.full",
        "ddp_failing_reader.ended",
        "fsdp_unusable.train",
    ):
        assert [(folder / f"{name}.{rank}").read_text() for rank in (0, 1)] == ["2", "2"]


def test_micro_batches_that_leave_a_process_without_images_are_refused() -> None:
    images = build.image_set(build.data_source(recipe("ddp")), "train", torch.device("cpu"))

    def chunks(batch_size: int, micro_batch: int) -> int:
        changed = recipe("ddp").model_copy(
            update={"train": recipe("ddp").train.model_copy(update={"batch_size": batch_size})}
        )
        info = build.data_source(changed).info
        return build.num_chunks(
            build.train_loader(changed, images, info, shard=(1, 2)), micro_batch
        )

    assert [chunks(9, 4), chunks(9, 2), chunks(10, 1), chunks(9, 5)] == [2, 3, 5, 1]
    with pytest.raises(RecipeError, match="1 splits 5 images into 5 chunks, and one process has"):
        chunks(9, 1)


def test_a_process_alone_agrees_with_itself() -> None:
    world = World()
    assert world.is_main
    assert world.any(True, False) == (True, False)
    assert torch.equal(world.mean(torch.ones(2)), torch.ones(2))
    world.check_same_step(3)
    with pytest.raises(CheckpointError, match="broken"), world.together():
        raise CheckpointError("broken")
