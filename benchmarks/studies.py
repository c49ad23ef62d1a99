"""Trainings of benchmarks: runs that resume, their time, and the cost of a training step."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from record_runs import collect
from training_step import WARM_UP, Steps

from pacavit import api, recipes
from pacavit.bench.turns import quartiles
from pacavit.engine import build, system
from pacavit.engine.run.environment import environment
from pacavit.engine.run.log import read_metrics
from pacavit.engine.weights.format import WEIGHTS
from pacavit.recipes.io import RECIPE_FILE

__all__ = [
    "Run",
    "evaluated",
    "read",
    "recipe_on",
    "step_cost",
    "train",
    "train_all",
    "trained",
    "write",
]


@dataclass(frozen=True)
class Run:
    """A training of a study.

    Attributes:
        folder: of the run.
        recipe: name or file.
        changes: of the recipe, as ``--set`` takes them.
        data: folder with the data set.
    """

    folder: Path
    recipe: str
    changes: tuple[str, ...]
    data: Path | None = None


def train(run: Run) -> Path:
    """Train a run, or resume it; one that is finished is not trained again. Returns its folder."""
    if not (run.folder / WEIGHTS).is_file():
        resume = (run.folder / RECIPE_FILE).is_file()
        api.train(
            run.recipe,
            run.folder,
            data=run.data,
            set=run.changes,
            resume=resume,
            progress=True,
        )
    return run.folder


def train_all(runs: Sequence[Run], jobs: int = 1) -> None:
    """Train runs one after the other, or several at a time, each with its part of the cores."""
    if jobs == 1:
        for number, run in enumerate(runs, 1):
            print(f"{number} of {len(runs)}: {run.folder.name}", flush=True)  # noqa: T201
            train(run)
        return
    threads = max(1, torch.get_num_threads() // jobs)
    context = get_context("spawn")
    with ProcessPoolExecutor(
        jobs, mp_context=context, initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        for number, folder in enumerate(pool.map(train, runs), 1):
            print(f"{number} of {len(runs)} finished: {folder.name}", flush=True)  # noqa: T201


def trained(run: Run) -> dict[str, Any]:
    """Score and time of a finished run.

    ``cpu_minutes`` are those the run would take alone on its threads: CPU time over their number.
    ``images_per_second`` is the median over the epochs.
    """
    rows, recipe = read_metrics(run.folder), recipes.load(run.folder)
    machine = read(run.folder / "environment.json")
    return {
        "epochs": recipe.train.epochs,
        "seed": recipe.train.seed,
        "val_accuracy": round(rows[-1]["val_accuracy"], 4),
        "minutes": round(rows[-1]["elapsed"] / 60, 4),
        "cpu_minutes": round(rows[-1]["elapsed_cpu"] / machine["threads"] / 60, 4),
        "threads": machine["threads"],
        "images_per_second": round(statistics.median(row["images_per_second"] for row in rows)),
    }


def evaluated(folder: Path, data: Path | None) -> dict[str, Any]:
    """The entry of a finished run, which is measured on the test images once."""
    if not (folder / "evaluation-test").is_dir():
        api.evaluate(folder, data=data, progress=True)
    return collect(folder)


def recipe_on(name: str, changes: Sequence[str], data: Path | None) -> recipes.Recipe:
    """A changed recipe with the folder of its data."""
    recipe = recipes.load(name, changes)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": data})})


def step_cost(
    variants: Mapping[str, recipes.Recipe],
    steps: int,
    prepare: Callable[[str, Steps], None] | None = None,
) -> dict[str, Any]:
    """Milliseconds of a training step (quartiles) of two recipes of the same data, by turns.

    Args:
        variants: two recipes by name.
        steps: measured of each, after a warm-up.
        prepare: changes the steps of a variant before they are measured.

    Returns:
        ``milliseconds`` by name, and ``ratio``, the second median over the first.
    """
    recipe = next(iter(variants.values()))
    device = system.pick_device(recipe.train.device)
    system.configure(device)
    source = build.data_source(recipe)
    images = build.image_set(source, "train", device)
    made = {name: Steps(each, source, images, plain=False) for name, each in variants.items()}
    for name, each in made.items():
        if prepare is not None:
            prepare(name, each)
    for number in range(WARM_UP + steps):
        for each in made.values():
            each.step(timed=number >= WARM_UP)
    seconds = {
        name: [sum(parts) for parts in zip(*each.seconds.values(), strict=True)]
        for name, each in made.items()
    }
    first, second = (statistics.median(values) for values in seconds.values())
    return {
        "ratio": round(second / first, 4),
        "milliseconds": {
            name: quartiles([1000 * value for value in values]) for name, values in seconds.items()
        },
        "steps": steps,
        "load": os.getloadavg()[0],
        "environment": environment(device),
    }


def read(path: Path) -> dict[str, Any]:
    """The content of a JSON file; empty if there is none."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record, whose folder is made; an older one is replaced atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    temporary.replace(path)
