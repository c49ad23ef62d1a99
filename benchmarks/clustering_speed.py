"""Batched clusterings against a loop over scikit-learn, image by image, on the same data.

::

    python benchmarks/clustering_speed.py

64 images of 64 and of 256 points in 64 channels, 16 clusters; fp32. Both start from the same
centers and stop by the same rules (scikit-learn's defaults), both find the same partitions: the
``agreement`` is the fraction of images whose partitions are equal. Both sides take turns, with one
call to warm up and four timed calls; numbers are medians over the rounds with quartiles. The result
is written to ``benchmarks/results/clustering_speed.json``. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.cluster import DBSCAN, AgglomerativeClustering, KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from torch import Tensor

from pacavit.bench.turns import quartiles
from pacavit.clustering.functional import agglomerative, dbscan, gaussian_mixture, kmeans
from pacavit.engine import system
from pacavit.engine.run.environment import environment

RESULTS = Path(__file__).parent / "results" / "clustering_speed.json"
IMAGES, CHANNELS, CLUSTERS = 64, 64, 16
MIN_SAMPLES = 5
CALLS = 4  # of a side in its turn
Labels = Callable[[], np.ndarray]


def main() -> None:
    """Read the command line, measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    device = system.pick_device("cpu")
    system.configure(device)
    rows = []
    for number in arguments.points:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(IMAGES, number, CHANNELS, generator=generator)
        for name, (batched, looped) in contestants(x).items():
            rows.append({"method": name, "points": number, **compare(batched, looped, arguments)})
            print(json.dumps(rows[-1]))  # noqa: T201
    result = {
        "command": " ".join(["python benchmarks/clustering_speed.py", *sys.argv[1:]]),
        "images": IMAGES,
        "channels": CHANNELS,
        "clusters": CLUSTERS,
        "rounds": arguments.rounds,
        "rows": rows,
        "environment": environment(device),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def contestants(x: Tensor) -> dict[str, tuple[Labels, Labels]]:
    """For every method, what finds the labels (B, N) of all images at once and one by one."""
    images = [image.numpy() for image in x]
    centers = x[:, :CLUSTERS].clone()
    weights = torch.full((IMAGES, CLUSTERS), 1 / CLUSTERS)
    precisions = torch.ones_like(centers)
    starts = {"weights_init": weights, "means_init": centers, "precisions_init": precisions}
    fifth = torch.cdist(x, x).kthvalue(MIN_SAMPLES + 1, dim=2).values
    radius = 1.001 * fifth.median(dim=1).values

    def mixture(index: int) -> np.ndarray:
        own = {name: value[index].numpy() for name, value in starts.items()}
        model = GaussianMixture(CLUSTERS, covariance_type="diag", **own)
        return model.fit_predict(images[index])

    def stacked(one: Callable[[int], np.ndarray]) -> Labels:
        return lambda: np.stack([one(index) for index in range(IMAGES)])

    return {
        "kmeans": (
            lambda: kmeans(x, CLUSTERS, init=centers).labels.numpy(),
            stacked(
                lambda index: KMeans(CLUSTERS, init=centers[index].numpy(), n_init=1).fit_predict(
                    images[index]
                )
            ),
        ),
        "gaussian_mixture": (
            lambda: gaussian_mixture(x, CLUSTERS, **starts).labels.numpy(),
            stacked(mixture),
        ),
        "agglomerative": (
            lambda: agglomerative(x, CLUSTERS).labels.numpy(),
            stacked(lambda index: AgglomerativeClustering(CLUSTERS).fit_predict(images[index])),
        ),
        "dbscan": (
            lambda: dbscan(x, radius, min_samples=MIN_SAMPLES).labels.numpy(),
            stacked(
                lambda index: DBSCAN(eps=radius[index].item(), min_samples=MIN_SAMPLES).fit_predict(
                    images[index]
                )
            ),
        ),
    }


def compare(batched: Labels, looped: Labels, arguments: argparse.Namespace) -> dict[str, Any]:
    """Times of both sides, by turns, after one round to warm up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        pairs = zip(batched(), looped(), strict=True)
        equal = [adjusted_rand_score(*pair) > 1 - 1e-9 for pair in pairs]
        times: dict[Labels, list[float]] = {batched: [], looped: []}
        for _ in range(arguments.rounds):
            for side, seconds in times.items():
                side()  # caches still hold the other side's
                start = time.perf_counter()
                for _ in range(CALLS):
                    side()
                seconds.append((time.perf_counter() - start) / CALLS)
    own, other = times[batched], times[looped]
    return {
        "agreement": statistics.mean(equal),
        "milliseconds": quartiles([1000 * each for each in own]),
        "scikit_learn_milliseconds": quartiles([1000 * each for each in other]),
        "ratio": quartiles([b / a for a, b in zip(own, other, strict=True)]),
    }


if __name__ == "__main__":
    main()
