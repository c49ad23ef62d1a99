"""Where the time of a training step goes: input pipeline, forward, backward, optimiser.

::

    python benchmarks/training_step.py cifar10_nano --data FOLDER

Runs the recipe's own steps on its own data, without writing a run. Each figure is the median and
the quartiles over the steps after a warm-up. The result goes to
``benchmarks/results/training_step.json``, one entry a recipe. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from pacavit import recipes
from pacavit.engine import build, optim, system

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
    times = measure(recipe.model_copy(update={"data": data}), arguments.steps)

    step = [sum(parts) for parts in zip(*times.values(), strict=True)]
    entry: dict[str, Any] = {
        "recipe": recipe.name,
        "set": arguments.set,
        "command": f"python benchmarks/training_step.py {recipe.name} --data DATA",
        "batch_size": recipe.train.batch_size,
        "images_per_second": recipe.train.batch_size / statistics.median(step),
        "input_share": sum(times["input"]) / sum(step),
        "milliseconds": {
            name: [round(1000 * value, 2) for value in statistics.quantiles(values)]
            for name, values in {**times, "step": step}.items()
        },
        "environment": system.environment(system.pick_device("auto")),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    entries = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else []
    key = (entry["recipe"], entry["set"])
    entries = [old for old in entries if (old["recipe"], old["set"]) != key]
    RESULTS.write_text(json.dumps([*entries, entry], indent=1) + "\n", "utf-8")
    json.dump(entry, sys.stdout, indent=1)


def measure(recipe: recipes.Recipe, steps: int) -> dict[str, list[float]]:
    """Seconds of each part of each step, the warm-up left out."""
    device, train = system.pick_device(recipe.train.device), recipe.train
    system.configure(device)
    source = build.data_source(recipe.data)
    images = build.image_set(source, "train", device)
    batches = build.train_loader(recipe, images, source.info).epoch(0)
    task = build.task(recipe, len(source.info.class_names)).to(device).train()
    optimizer = optim.create_optimizer(task.model, train)
    times: dict[str, list[float]] = {"input": [], "forward": [], "backward": [], "optimizer": []}
    for number in range(WARM_UP + steps):
        marks = [time.perf_counter()]
        batch = next(batches)
        marks.append(time.perf_counter())
        with system.autocast(device, train.precision), system.training_kernels(device):
            loss = task(batch)["loss"]
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        optimizer.step()
        optimizer.zero_grad(set_to_none=device.type != "cpu")
        marks.append(time.perf_counter())
        if number >= WARM_UP:
            for name, start, end in zip(times, marks, marks[1:], strict=False):
                times[name].append(end - start)
    return times


if __name__ == "__main__":
    main()
