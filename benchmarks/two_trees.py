"""Compare the training speed of two source trees, for example before and after a refactoring.

::

    git worktree add ../before COMMIT
    python benchmarks/two_trees.py ../before --rounds 7

Each turn is a process of its own that trains ``cifar10_nano``'s network on random images in memory
and reports the seconds of a step (the median of the steps after a warm-up). Writes
``benchmarks/results/two_trees.json`` with all turns, and prints the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).parent / "results" / "two_trees.json"
STEPS, WARM_UP, BATCH = 40, 8, 256

# Runs in both trees, so it uses only interfaces that both have: recipe, trainer, training step.
TURN = """
import json, sys, tempfile, time
from pathlib import Path
from statistics import median
import torch
from pacavit import recipes
from pacavit.data import DATASETS, MemoryImages
from pacavit.data.base import DataSource, DataInfo

try:
    from pacavit.engine.trainer import Trainer
except ImportError:  # in trees of release 0.1
    from pacavit.engine.train import Trainer
from pacavit.engine.distributed import World

steps, warm_up, batch = map(int, sys.argv[1:])

@DATASETS.register("random-images")
class RandomImages(DataSource):
    default_val_size = 64
    @property
    def info(self):
        half = (0.5, 0.5, 0.5)
        names = tuple("abcdefghij")
        return DataInfo("random-images", "random", names, (32, 32), half, half)
    def load(self, split):
        num = batch * (steps + warm_up) if split == "train" else 64
        images = torch.randint(0, 256, (num, 3, 32, 32), dtype=torch.uint8)
        return MemoryImages(images, torch.arange(num) % 10)

settings = ["data.name=random-images", "data.val_size=null", "data.root=null",
            f"train.batch_size={batch}", "train.epochs=1"]
recipe = recipes.load("cifar10_nano", settings)
with tempfile.TemporaryDirectory() as folder:
    trainer = Trainer(recipe, Path(folder), World())
    trainer.wrap()
    trainer.task.train()
    times, start = [], time.perf_counter()
    for each in trainer._train_loader(0).epoch(0):
        trainer._train_step(each)
        now = time.perf_counter()
        times.append(now - start)
        start = now
print(json.dumps(median(times[warm_up:])))
"""


def main() -> None:
    """Take turns, print, record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("before", type=Path, help="checkout of the other tree")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    trees = {"before": arguments.before, "after": Path(__file__).parents[1]}
    seconds: dict[str, list[float]] = {name: [] for name in trees}
    for number in range(arguments.rounds):
        order = list(trees) if number % 2 == 0 else list(trees)[::-1]
        for name in order:
            seconds[name].append(turn(trees[name]))
            print(f"round {number + 1}, {name}: {seconds[name][-1] * 1000:.1f} ms a step")  # noqa: T201
    ratios = [new / old for new, old in zip(seconds["after"], seconds["before"], strict=True)]
    record = {
        "command": f"python benchmarks/two_trees.py BEFORE --rounds {arguments.rounds}",
        "commits": {name: commit(tree) for name, tree in trees.items()},
        "cpu_cores": os.cpu_count(),
        "machine": platform.machine(),
        "batch_size": BATCH,
        "seconds_per_step": seconds,
        "medians": {name: median(values) for name, values in seconds.items()},
        "ratio_of_medians": median(seconds["after"]) / median(seconds["before"]),
        "ratios_by_round": ratios,
    }
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"after / before: {record['ratio_of_medians']:.3f}; recorded in {RESULTS}")  # noqa: T201


def turn(tree: Path) -> float:
    """Seconds of a training step in a tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve() / "src")}
    words = [sys.executable, "-c", TURN, *map(str, (STEPS, WARM_UP, BATCH))]
    done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)  # noqa: S603
    return float(json.loads(done.stdout.splitlines()[-1]))


def commit(tree: Path) -> str:
    """The commit that a checkout is at."""
    words = ["git", "-C", str(tree), "rev-parse", "HEAD"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603


if __name__ == "__main__":
    main()
