"""Networks trained with one clustering, measured with another one, without any training.

::

    python benchmarks/swap_matrix.py --data FOLDER cifar10_nano_conv cifar10_nano_kmeans ...

Each model (packaged name, run folder or weights file) is measured on the test images as it is, then
with every clustering that has nothing to learn in the place of its own, and then with its own, if
that has nothing to learn, and other numbers of clusters. The result goes to
``benchmarks/results/swap_matrix.json``; ``docs/clusterings.md`` shows it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pacavit.engine import build, evaluate, load_model, system

RESULTS = Path(__file__).parent / "results" / "swap_matrix.json"
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
    models = []
    for name in arguments.models:
        models.append(measure(name, arguments.data, device))
        print(json.dumps(models[-1]))  # noqa: T201
        result = {
            "command": "python benchmarks/swap_matrix.py --data DATA "
            + " ".join(Path(model).name for model in arguments.models),
            "models": models,
            "environment": system.environment(device),
        }
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def measure(name: str, root: Path | None, device: Any) -> dict[str, Any]:
    """Accuracies of one model with all that it can be given."""
    loaded = load_model(name)
    config = loaded.recipe.data
    source = build.data_source(config.model_copy(update={"root": root}) if root else config)
    loader = build.eval_loader(loaded.recipe, build.image_set(source, "test", device), loaded.info)
    network = loaded.classifier.model

    def accuracy(model: Any) -> float:
        loaded.classifier.model = model
        found = evaluate.evaluate(
            loaded.classifier, loader, loaded.info.class_names, device=device, progress=True
        )
        return round(found.accuracy, 4)

    kind = network.mixers[0].clustering_name
    own = {"clustering": kind, "accuracy": accuracy(network), "data": source.info.copy}
    swapped = {other: accuracy(network.with_clustering(other)) for other in SWAPS if other != kind}
    numbers = {}
    if kind in SWAPS:
        options = network.mixers[0].clustering_options
        numbers = {
            number: accuracy(network.with_clustering(kind, number, **options)) for number in NUMBERS
        }
    return {"model": Path(name).name, **own, "swapped": swapped, "numbers": numbers}


if __name__ == "__main__":
    main()
