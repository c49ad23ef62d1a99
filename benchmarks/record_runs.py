"""Collect finished and evaluated runs into one table of results under version control.

::

    pacavit train cifar10_nano --set model.clustering=mlp --data FOLDER --out runs/mlp
    pacavit evaluate runs/mlp
    python benchmarks/record_runs.py cifar10_cpu runs/mlp ...

Adds one entry per run to ``benchmarks/results/NAME.json``: commands, version of the data, seed,
time, machine, and all scores; and a shorter entry to the list of ``pacavit reproduce``. An entry of
the same recipe is replaced.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from pacavit import recipes
from pacavit.engine import load_model
from pacavit.engine.run.log import read_metrics
from pacavit.models import count_macs
from pacavit.recipes.schema import Recipe
from pacavit.report.publishing.command import recipe_changes, training_command
from pacavit.report.publishing.published import Published, published
from pacavit.utils.registry import load_plugin

RESULTS = Path(__file__).parent / "results"
SCORES = {
    "classification": ("accuracy", "precision_macro", "recall_macro", "f1_macro"),
    "segmentation": ("mIoU", "pixel_accuracy", "mean_accuracy", "boundary_IoU", "clusters_mIoU"),
    "detection": ("box_AP", "box_AP50", "box_AP75", "best_F1"),
    "instance_segmentation": ("mask_AP", "mask_AP50", "mask_AP75", "box_AP", "best_F1"),
}
"""Scores of ``pacavit reproduce`` by task, the main one first; those that a run has."""
PLUGIN_TASKS = {"torchvision-segmentation": "segmentation"}
PUBLISHED = Path(__file__).parents[1] / "src" / "pacavit" / "report" / "published.json"


def main() -> None:
    """Read the command line, collect, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", help="of the results file")
    parser.add_argument("--plugin", type=Path, action="append", default=[], help="of the runs")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders with evaluation-test/")
    parser.add_argument(
        "--unlisted",
        action="store_true",
        help="leave pacavit reproduce alone: the runs need weights or data that few have",
    )
    arguments = parser.parse_args()
    for plugin in arguments.plugin:
        load_plugin(plugin)
    path = RESULTS / f"{arguments.name}.json"
    entries = json.loads(path.read_text("utf-8")) if path.exists() else []
    listed = {entry.name: entry for entry in published()}
    for run in arguments.runs:
        entry = collect(run)
        entries = [old for old in entries if old["commands"] != entry["commands"]]
        entries.append(entry)
        if not arguments.unlisted:
            short = shorten(run, entry)
            listed[short.name] = short
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(entries, indent=1) + "\n", "utf-8")
    ordered = [listed[name].model_dump() for name in sorted(listed)]
    PUBLISHED.write_text(json.dumps(ordered, indent=1) + "\n", "utf-8")
    print(f"wrote {path}, {len(entries)} runs")  # noqa: T201


def collect(run: Path) -> dict[str, Any]:
    """One entry; holds no folder names of the machine."""
    recipe = recipes.load(run)
    evaluation = json.loads((run / "evaluation-test" / "evaluation.json").read_text("utf-8"))
    epochs, main = read_metrics(run), _scores(recipe)[0]
    model = load_model(run)
    network = model.task.model
    return {
        "commands": [str(training_command(recipe)), "pacavit evaluate DIR --data ROOT"],
        "data": evaluation["data"],
        "seed": recipe.train.seed,
        "parameters": sum(each.numel() for each in network.parameters()),
        "macs": count_macs(network, recipe.task.input_size(model.info.image_size)),
        "training_minutes": round(epochs[-1]["elapsed"] / 60, 1),
        "images_per_second_by_epoch": [round(row["images_per_second"]) for row in epochs],
        f"val_{main}_by_epoch": [round(row[f"val_{main}"], 4) for row in epochs],
        "trained_with": json.loads((run / "environment.json").read_text("utf-8")),
        "test": {
            **{
                name: value
                for name, value in evaluation.items()
                if name not in ("command", "data", "environment", "scores", "arrays")
            },
            **evaluation["scores"],
            **evaluation["arrays"],
        },
    }


def shorten(run: Path, entry: dict[str, Any]) -> Published:
    """The entry for ``pacavit reproduce``, named after the recipe and what differs in it."""
    recipe = recipes.load(run)
    # Any number of workers gives the same bits.
    changes = [each for each in recipe_changes(recipe) if not each.startswith("data.num_workers=")]
    words = [recipe.name]
    for change in changes:
        field, _, value = change.partition("=")
        value = re.sub(r"[^A-Za-z0-9.+-]+", "_", value).strip("_")
        known = field in ("model.clustering", "model.clustering_options")
        words.append(value if known else f"{field.rpartition('.')[2]}_{value}")
    test, machine = entry["test"], entry["trained_with"]
    return Published(
        name="-".join(words),
        recipe=recipe.name,
        changes=tuple(changes),
        data=entry["data"],
        num_images=test["num_images"],
        scores={score: round(test[score], 4) for score in _scores(recipe) if score in test},
        minutes=entry["training_minutes"],
        machine=f"{machine['cpu']}, {machine['threads']} threads",
    )


def _scores(recipe: Recipe) -> tuple[str, ...]:
    task = recipe.task.name
    return SCORES[PLUGIN_TASKS.get(task, task)]


if __name__ == "__main__":
    main()
