"""Kill -9 a training run at random moments, resume it, and compare the final weights bit by bit.

::

    python benchmarks/kill_resume.py --points 20

A small network is trained on the handwritten digits, with a checkpoint after every step, so that
many kills happen while one is written; every fourth kill waits for a half-written checkpoint. The
result goes to ``benchmarks/results/kill_resume.json``. Exits with 1 if any run differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import random
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from pacavit import recipes
from pacavit.engine import train
from pacavit.engine.run.environment import environment
from pacavit.engine.weights import checkpoint

RESULTS = Path(__file__).parent / "results" / "kill_resume.json"
SETTINGS = (
    "train.epochs=2",
    "train.batch_size=256",
    "train.checkpoint_minutes=1e-9",
    "train.device=cpu",
    "task.image_size=16",
    "model.options.embed_dims=[16,16,32]",
    "model.options.num_heads=[2,2,2]",
    "model.options.stem_dims=[8,16]",
    "model.drop_path=0.1",
)


def main() -> int:
    """Read the command line, kill, resume, compare, record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begin(folder / "warm-up", resume=False).join()
        start = time.perf_counter()
        begin(folder / "whole", resume=False).join()
        seconds = time.perf_counter() - start
        expected, steps = digest(folder / "whole"), steps_saved(folder / "whole")
        points = []
        for number in range(arguments.points):
            step, delay = draw.randrange(steps), draw.uniform(0, seconds / steps)
            point = kill(folder / str(number), step, None if number % 4 == 3 else delay)
            resume = (folder / str(number) / "recipe.json").exists()
            begin(folder / str(number), resume=resume).join()
            point["identical"] = digest(folder / str(number)) == expected
            print(json.dumps(point), flush=True)  # noqa: T201
            points.append(point)
    identical = sum(point["identical"] for point in points)
    result = {
        "command": f"python benchmarks/kill_resume.py --points {len(points)} "
        f"--seed {arguments.seed}",
        "recipe": "digits",
        "set": SETTINGS,
        "seconds_uninterrupted": round(seconds, 2),
        "runs_with_identical_weights": f"{identical} of {len(points)}",
        "half_written_checkpoints": sum(point["half_written"] for point in points),
        "points": points,
        "environment": environment(torch.device("cpu")),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0 if identical == len(points) else 1


def session(out: Path, resume: bool) -> None:
    """One attempt at the run, in a process of its own."""
    train(recipes.load("digits", SETTINGS), out, resume=resume, progress=False)


def begin(out: Path, *, resume: bool) -> BaseProcess:
    """Start a session; its process is forked from one that has only imported the package."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pacavit.engine", "sklearn.datasets"])
    process = context.Process(target=session, args=(out, resume))
    process.start()
    return process


def kill(out: Path, step: int, delay: float | None) -> dict[str, Any]:
    """Start a run, kill it, and describe the remaining checkpoints.

    Args:
        out: folder of the run.
        step: let it save so many steps first.
        delay: and then so many seconds; None waits for a half-written checkpoint.
    """
    process = begin(out, resume=False)
    while process.is_alive() and steps_saved(out) < step:
        time.sleep(1e-3)
    if delay is None:
        while process.is_alive() and not half_written(out):
            time.sleep(1e-4)
    else:
        process.join(delay)
    process.kill()
    process.join()
    return {
        "after_step": step,
        "delay_seconds": delay if delay is None else round(delay, 4),
        "exit_code": process.exitcode,
        "steps_saved": steps_saved(out),
        "half_written": half_written(out),
    }


def steps_saved(out: Path) -> int:
    """Steps in the newest checkpoint of a run."""
    newest = checkpoint.newest(out / "checkpoints")
    return 0 if newest is None else int(newest.name.removeprefix("step-"))


def half_written(out: Path) -> bool:
    """Whether there is an unfinished checkpoint."""
    return any((out / "checkpoints").glob(".tmp-step-*"))


def digest(run: Path) -> str:
    """A hash of the final weights."""
    return hashlib.sha256((run / "weights.safetensors").read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
