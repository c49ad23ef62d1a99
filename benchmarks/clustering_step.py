"""Time of a training step with each clustering, relative to the same step with conv.

::

    python benchmarks/clustering_step.py cifar10_nano --data FOLDER

One process takes steps of all clusterings by turns, 128 images each, with forward, backward and
optimizer; figures are medians and quartiles over the steps after a warm-up. The ratio is that of a
step to the step with conv of the same turn. The result goes to
``benchmarks/results/clustering_step.json``. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from training_step import WARM_UP, Steps

from pacavit import recipes
from pacavit.bench.turns import quartiles
from pacavit.engine import build, system
from pacavit.engine.run.environment import environment

RESULTS = Path(__file__).parent / "results" / "clustering_step.json"
CLUSTERINGS = ("conv", "mlp", "kmeans", "gmm", "hierarchical", "dbscan", "grid", "random")


def main() -> None:
    """Read the command line, measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    device = system.pick_device("cpu")
    system.configure(device)
    runs = {}
    for name in CLUSTERINGS:
        changes = [f"model.clustering={name}", "train.batch_size=128", "train.device=cpu"]
        recipe = recipes.load(arguments.recipe, changes)
        data = recipe.data.model_copy(update={"root": arguments.data})
        recipe = recipe.model_copy(update={"data": data})
        source = build.data_source(recipe)
        images = build.image_set(source, "train", device)
        runs[name] = Steps(recipe, source, images, plain=False)
    for number in range(WARM_UP + arguments.steps):
        for run in runs.values():
            run.step(timed=number >= WARM_UP)
    seconds = {
        name: [sum(parts) for parts in zip(*run.seconds.values(), strict=True)]
        for name, run in runs.items()
    }
    rows = []
    for name, own in seconds.items():
        ratios = [one / other for one, other in zip(own, seconds["conv"], strict=True)]
        rows.append(
            {
                "clustering": name,
                "milliseconds": quartiles([1000 * each for each in own]),
                "ratio": quartiles(ratios),
            }
        )
        print(json.dumps(rows[-1]))  # noqa: T201
    result = {
        "command": " ".join(["python benchmarks/clustering_step.py", *sys.argv[1:]]),
        "batch_size": 128,
        "rows": rows,
        "environment": environment(device),
    }
    result["command"] = result["command"].replace(str(arguments.data), "DATA")
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
