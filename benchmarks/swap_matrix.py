"""Accuracy of networks trained with one clustering and evaluated with another.

::

    python benchmarks/swap_matrix.py --data FOLDER cifar10_nano_conv cifar10_nano_kmeans ...

Each model (packaged name, run folder or weights file) is evaluated on the test images: unchanged,
with every clustering without parameters in place of its own, with a single cluster, and with other
numbers of clusters if its own clustering has no parameters. The result is written to
``benchmarks/results/swap_matrix.json``, where values of earlier calls are kept, and drawn in
``docs/pictures/swap_matrix.png``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pacavit.engine import build, evaluate, load_model, system
from pacavit.engine.run.environment import environment
from pacavit.report.evaluation import weights_digest

RESULTS = Path(__file__).parent / "results" / "swap_matrix.json"
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "swap_matrix.png"
SWAPS = ("kmeans", "gmm", "hierarchical", "dbscan", "grid", "random")
NUMBERS = (4, 9, 16, 25, 36, 49)


def main() -> None:
    """Read the command line, measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    device = system.pick_device("auto")
    system.configure(device)
    result = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"models": []}
    known = {model["model"]: model for model in result["models"]}
    for name in arguments.models:
        label = Path(name).name
        known[label] = measure(name, arguments.data, device, known.get(label, {}))
        print(json.dumps(known[label]))  # noqa: T201
        result = {
            "command": " ".join(["python benchmarks/swap_matrix.py --data DATA", *known]),
            "models": list(known.values()),
            "environment": environment(device),
        }
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    draw(list(known.values()), PICTURE)


def measure(name: str, root: Path | None, device: Any, known: dict[str, Any]) -> dict[str, Any]:
    """Accuracies of one model with all clusterings; known ones are not measured again."""
    loaded = load_model(name)
    source = build.data_source(loaded.recipe, root)
    loader = build.eval_loader(loaded.recipe, build.image_set(source, "test", device), loaded.info)
    network = loaded.classifier.model
    kind = network.mixers[0].clustering_name
    digest = weights_digest(loaded)
    if known.get("weights_sha256") != digest or known.get("data") != source.info.version:
        known = {}

    def accuracy(found: float | None, *swap: Any, **options: Any) -> float:
        if found is not None:
            return found
        loaded.classifier.model = network.with_clustering(*swap, **options) if swap else network
        names = loaded.info.class_names
        scores = evaluate(loaded.classifier, loader, names, device=device, progress=True)
        return round(scores.accuracy, 4)

    own = accuracy(known.get("accuracy"))
    before = known.get("swapped", {})
    swapped = {other: accuracy(before.get(other), other) for other in SWAPS if other != kind}
    numbers = {}
    if kind in SWAPS:
        options = network.mixers[0].clustering_options
        before = known.get("numbers", {})
        numbers = {
            str(number): accuracy(before.get(str(number)), kind, number, **options)
            for number in NUMBERS
        }
    return {
        "model": Path(name).name,
        "clustering": kind,
        "data": source.info.version,
        "weights_sha256": digest,
        "accuracy": own,
        "single": accuracy(known.get("single"), "grid", 1),
        "swapped": swapped,
        "numbers": numbers,
    }


def draw(models: list[dict[str, Any]], path: Path) -> None:
    """The matrix as a heatmap with its numbers, and lines over the number of clusters."""
    columns = ["own", *SWAPS, "one cluster"]
    matrix = np.full((len(models), len(columns)), np.nan)
    for row, model in enumerate(models):
        matrix[row, 0] = model["accuracy"]
        for column, name in enumerate(SWAPS, 1):
            matrix[row, column] = model["swapped"].get(name, model["accuracy"])
        matrix[row, -1] = model["single"]
    figure = Figure(figsize=(12, 4.2), layout="constrained", dpi=130)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    left.imshow(matrix, vmin=matrix.min(), vmax=matrix.max(), cmap="cividis", aspect="auto")
    left.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    left.set_yticks(range(len(models)), [model["clustering"] for model in models])
    left.set(xlabel="measured with", ylabel="trained with", title="Accuracy, nothing retrained")
    for (row, column), value in np.ndenumerate(matrix):
        color = "black" if value > matrix.mean() - 0.02 else "white"
        left.text(column, row, f"{value:.3f}", ha="center", va="center", color=color, fontsize=8)
    for model in models:
        if model["numbers"]:
            numbers = {1: model["single"]}
            numbers |= {int(number): value for number, value in model["numbers"].items()}
            right.plot(list(numbers), list(numbers.values()), "o-", label=model["clustering"])
    right.axvline(16, color="0.6", linestyle=":", label="M in training")
    right.set(xlabel="clusters M in the test", ylabel="accuracy", title="Other numbers of clusters")
    right.set_xscale("log", base=2)
    right.set_xticks([1, *NUMBERS], ["1", *map(str, NUMBERS)])
    right.legend(frameon=False, loc="lower right")
    figure.savefig(path)


if __name__ == "__main__":
    main()
