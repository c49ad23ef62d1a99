"""Time of explanations, relative to Grad-CAM of the same images.

::

    python benchmarks/explanation_speed.py cifar10_nano_conv cifar10_nano_kmeans ...

One process explains the same 100 images by all methods in turns; figures are medians and quartiles
over the rounds after a warm-up. The ratio is that to Grad-CAM (the package grad-cam) of the same
round. The result goes to ``benchmarks/results/explanation_speed.json``. Nothing else should run
meanwhile.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from pacavit.bench.turns import quartiles
from pacavit.engine import load_model, system
from pacavit.engine.run.environment import environment
from pacavit.explain import METHODS
from pacavit.report.publishing.card import input_size

RESULTS = Path(__file__).parent / "results" / "explanation_speed.json"
COMPARED = (
    "attention_map",
    "class_map",
    "relevance",
    "cluster_gradient",
    "cluster_contributions",
    "grad_cam",
)
WARM_UP, IMAGES = 2, 100


def main() -> None:
    """Read the command line, measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    device = system.pick_device("cpu")
    system.configure(device)
    rows = [row for model in arguments.models for row in measure(model, arguments.rounds)]
    result = {
        "command": " ".join(["python benchmarks/explanation_speed.py", *sys.argv[1:]]),
        "images": IMAGES,
        "rows": rows,
        "environment": environment(device),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def measure(model: str, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds per image, and ratio to Grad-CAM; one row per method."""
    loaded = load_model(model)
    network = loaded.classifier.eval().model
    images = torch.randn(IMAGES, 3, *input_size(loaded), generator=torch.Generator())
    classes = torch.arange(IMAGES) % len(loaded.info.class_names)
    methods = {name: METHODS.create(name, network, options={}) for name in COMPARED}
    seconds: dict[str, list[float]] = {name: [] for name in COMPARED}
    for number in range(WARM_UP + rounds):
        for name, method in methods.items():
            start = time.perf_counter()
            method(images, classes)
            if number >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    rows = []
    for name, own in seconds.items():
        ratios = [one / other for one, other in zip(own, seconds["grad_cam"], strict=True)]
        milliseconds = quartiles([1000 * each / IMAGES for each in own])
        rows.append(
            {
                "model": model,
                "method": name,
                "milliseconds": milliseconds,
                "ratio": quartiles(ratios),
            }
        )
        print(json.dumps(rows[-1]))  # noqa: T201
    return rows


if __name__ == "__main__":
    main()
