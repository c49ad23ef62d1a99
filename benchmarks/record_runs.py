"""Collect finished and evaluated runs into one table of results under version control.

::

    pacavit train cifar10_nano --set model.clustering=mlp --data FOLDER --out runs/mlp
    pacavit evaluate runs/mlp
    python benchmarks/record_runs.py cifar10_cpu runs/mlp ...

``benchmarks/results/NAME.json`` gains one entry a run: the commands, the copy of the data, seed,
time, machine, and all scores. An entry of the same recipe is replaced.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pacavit import recipes
from pacavit.engine.log import read_metrics
from pacavit.report.command import training_command

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Read the command line, collect, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", help="of the results file")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders with evaluation-test/")
    arguments = parser.parse_args()
    path = RESULTS / f"{arguments.name}.json"
    entries = json.loads(path.read_text("utf-8")) if path.exists() else []
    for run in arguments.runs:
        entry = collect(run)
        entries = [old for old in entries if old["commands"] != entry["commands"]]
        entries.append(entry)
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(entries, indent=1) + "\n", "utf-8")
    print(f"wrote {path}, {len(entries)} runs")  # noqa: T201


def collect(run: Path) -> dict[str, Any]:
    """One entry; holds no folder names of the machine."""
    recipe = recipes.load(run)
    evaluation = json.loads((run / "evaluation-test" / "evaluation.json").read_text("utf-8"))
    epochs = read_metrics(run)
    return {
        "commands": [training_command(recipe), "pacavit evaluate DIR --data ROOT"],
        "data": evaluation["data"],
        "seed": recipe.train.seed,
        "training_minutes": round(epochs[-1]["elapsed"] / 60, 1),
        "images_per_second_by_epoch": [round(row["images_per_second"]) for row in epochs],
        "val_accuracy_by_epoch": [round(row["val_accuracy"], 4) for row in epochs],
        "trained_with": json.loads((run / "environment.json").read_text("utf-8")),
        "test": {
            name: value
            for name, value in evaluation.items()
            if name not in ("command", "data", "environment")
        },
    }


if __name__ == "__main__":
    main()
