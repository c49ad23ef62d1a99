"""Time of the parts of a training step: input pipeline, forward, backward, optimizer.

::

    python benchmarks/training_step.py cifar10_nano --data FOLDER

Runs forward, backward and optimizer of the recipe on its own data, without averaging weights or
writing a run, and in turns the same steps ("plain") without optimizations of the engine: with
PyTorch's own choice of the attention kernel, and with gradients whose memory is freed in every
step. Both start from the same weights and use the same images; equal losses show that they do the
same work. Numbers are medians and quartiles over the steps after a warm-up. The result is written
to ``benchmarks/results/training_step.json``, one entry per recipe. Nothing else should run
meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from contextlib import nullcontext
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch

from pacavit import recipes
from pacavit.bench.turns import quartiles
from pacavit.data import DataSource, ImageSet
from pacavit.engine import build, optim, system
from pacavit.engine.run.environment import environment

RESULTS = Path(__file__).parent / "results" / "training_step.json"
WARM_UP = 5


def main() -> None:
    """Read the command line, measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    arguments = parser.parse_args()
    recipe = recipes.load(arguments.recipe, arguments.set)
    data = recipe.data.model_copy(update={"root": arguments.data})
    engine, plain = measure(recipe.model_copy(update={"data": data}), arguments.steps)
    changes = "".join(f" --set {change}" for change in arguments.set)
    entry: dict[str, Any] = {
        "recipe": recipe.name,
        "set": arguments.set,
        "command": f"python benchmarks/training_step.py {recipe.name} --data DATA{changes}",
        "batch_size": recipe.train.batch_size,
        **summary(engine, recipe.train.batch_size),
        "plain": summary(plain, recipe.train.batch_size),
        "environment": environment(system.pick_device("auto")),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    entries = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else []
    key = (entry["recipe"], entry["set"])
    entries = [old for old in entries if (old["recipe"], old["set"]) != key]
    RESULTS.write_text(json.dumps([*entries, entry], indent=1) + "\n", "utf-8")
    json.dump(entry, sys.stdout, indent=1)


def summary(run: Steps, batch_size: int) -> dict[str, Any]:
    """Speed, times of the parts, and losses of one variant."""
    step = [sum(parts) for parts in zip(*run.seconds.values(), strict=True)]
    return {
        "images_per_second": batch_size / statistics.median(step),
        "input_share": sum(run.seconds["input"]) / sum(step),
        "milliseconds": {
            name: quartiles([1000 * value for value in values])
            for name, values in {**run.seconds, "step": step}.items()
        },
        "first_losses": [round(loss, 4) for loss in run.losses[:5]],
    }


def measure(recipe: recipes.Recipe, steps: int) -> tuple[Steps, Steps]:
    """The engine's steps and plain ones, by turns."""
    source = build.data_source(recipe)
    system.configure(system.pick_device(recipe.train.device))
    images = build.image_set(source, "train", system.pick_device(recipe.train.device))
    runs = [Steps(recipe, source, images, plain=plain) for plain in (False, True)]
    for number in range(WARM_UP + steps):
        for run in runs:
            run.step(timed=number >= WARM_UP)
    return runs[0], runs[1]


class Steps:
    """Training steps of a recipe and their times.

    Attributes:
        seconds: of each part of each counted step.
        losses: of every step.
    """

    def __init__(
        self, recipe: recipes.Recipe, source: DataSource, images: ImageSet, *, plain: bool
    ) -> None:
        self.plain, self.train = plain, recipe.train
        self.device = system.pick_device(recipe.train.device)
        loader = build.train_loader(recipe, images, source.info)
        self.batches = chain.from_iterable(map(loader.epoch, count()))
        torch.manual_seed(recipe.train.seed)
        self.task = build.task(recipe, source.info).to(self.device).train()
        self.optimizer = optim.create_optimizer(self.task.model, recipe.train)
        parts = ("input", "forward", "backward", "optimizer")
        self.seconds: dict[str, list[float]] = {name: [] for name in parts}
        self.losses: list[float] = []

    def step(self, *, timed: bool) -> None:
        """One step, its times kept if ``timed``."""
        kernels = nullcontext() if self.plain else system.training_kernels(self.device)
        marks = [time.perf_counter()]
        batch = next(self.batches)
        marks.append(time.perf_counter())
        with system.autocast(self.device, self.train.precision), kernels:
            loss = torch.stack(list(self.task(batch).values())).sum()
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=self.plain or self.device.type != "cpu")
        marks.append(time.perf_counter())
        self.losses.append(loss.item())
        if timed:
            for name, start, end in zip(self.seconds, marks, marks[1:], strict=False):
                self.seconds[name].append(end - start)


if __name__ == "__main__":
    main()
