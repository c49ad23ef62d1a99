"""Train and test recipes on real CIFAR-10, one run after the other, and record what came out.

::

    python benchmarks/cifar10_cpu.py --data FOLDER --out runs cifar10_nano:conv cifar10_nano:mlp

Each argument is RECIPE:CLUSTERING. A run that was interrupted is resumed, one that has finished is
only tested if it has not been yet. ``benchmarks/results/cifar10_cpu.json`` gains one entry a run,
with the command, the copy of the data, the seed and the machine. Nothing else heavy should run
meanwhile, or the times lie.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pacavit import api, recipes

RESULTS = Path(__file__).parent / "results" / "cifar10_cpu.json"


def main() -> None:
    """Work through the runs named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RECIPE:CLUSTERING")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    for name in arguments.runs:
        recipe, clustering = name.split(":")
        folder = arguments.out / f"{recipe}-{clustering}"
        changes = [f"model.clustering={clustering}"]
        if not (folder / "weights.safetensors").exists():
            api.train(
                recipes.load(recipe, changes),
                folder,
                data=arguments.data,
                resume=folder.exists(),
                progress=True,
            )
        result = api.evaluate(folder, data=arguments.data, split="test")
        record(
            {
                "recipe": recipe,
                "clustering": clustering,
                "commands": [
                    f"pacavit train {recipe} --set {changes[0]} --data DATA --out {folder.name}",
                    f"pacavit evaluate {folder.name} --data DATA",
                ],
                "evaluation": json.loads(
                    (folder / "evaluation-test" / "evaluation.json").read_text("utf-8")
                ),
                "training": json.loads(
                    (folder / "metrics.jsonl").read_text("utf-8").splitlines()[-1]
                ),
            }
        )
        print(f"{name}: test accuracy {result.accuracy:.4f}", flush=True)  # noqa: T201


def record(entry: dict[str, object]) -> None:
    """Replace or add one entry of the results file."""
    RESULTS.parent.mkdir(exist_ok=True)
    entries = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else []
    key = (entry["recipe"], entry["clustering"])
    entries = [old for old in entries if (old["recipe"], old["clustering"]) != key]
    RESULTS.write_text(json.dumps([*entries, entry], indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
