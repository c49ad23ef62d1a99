"""Which map of a region of a segmentation is faithful? Insertion and deletion, per method.

For images of a split and each class with at least 2 % of an image's area: a map of why the pixels
of this class are so, by each method. Pixels are inserted into the blurred image, or replaced by the
mean color, in the order of the map, and the probability of the class (softmax of the mean logits of
the region) is averaged over the fraction of pixels. ``inside`` is the fraction of the map that lies
in the region, relative to the region's own area: 1 is a map that does not know of the region. The
control ``region`` is 1 in the region and 0 elsewhere.

    python benchmarks/region_maps.py MODEL --data ROOT --images 8
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from pacavit.engine import build, load_model
from pacavit.engine.predictor import Predictor
from pacavit.explain import METHODS, RegionScores, input_region
from pacavit.explain.evaluation.metrics.faithfulness import area_under_curve, perturbation_curves
from pacavit.tasks.segmentation import SegmentationTask, class_areas
from pacavit.utils.statistics import mean_interval

DEFAULT = (
    "cluster_contributions,cluster_gradient,relevance,class_map,grad_cam,hires_cam,layer_cam,"
    "integrated_gradients,occlusion,edges,center,random"
)
LEAST_AREA = 0.02


def main() -> None:
    """Read the command line, measure, and print a line per method."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--methods", default=DEFAULT)
    options = parser.parse_args()
    model = load_model(options.model)
    assert isinstance(model.task, SegmentationTask)
    images = build.data_source(model.recipe, options.data, model.info).load(options.split)
    predictor = Predictor(model)
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for position in (index * len(images) // options.images for index in range(options.images)):
        batch = predictor.prepare([images[position].image])
        labels = predictor.records(batch)[0].labels
        for label, area in class_areas(labels):
            if area < LEAST_AREA:
                continue
            inside = input_region(labels == label, batch.placements[0].input_size)
            network = RegionScores(model.task.model, inside[None]).eval()
            for name in (*options.methods.split(","), "region"):
                start = time.perf_counter()
                found = (
                    inside[None].float()
                    if name == "region"
                    else METHODS.create(name, network, options={})(
                        batch.images, torch.tensor([label])
                    )
                )
                seconds = time.perf_counter() - start
                for key, value in measure(
                    network, batch.images, found, label, inside, options.steps
                ).items():
                    scores[name][key].append(value)
                scores[name]["seconds"].append(seconds)
        print(f"{position}: {len(scores['region']['insertion'])} regions", flush=True)  # noqa: T201
    for name, rows in scores.items():
        means = {key: sum(values) / len(values) for key, values in rows.items()}
        _, low, high = mean_interval(torch.tensor(rows["difference"]))
        texts = (f"{key} {value:.3f}" for key, value in means.items())
        interval = f"  difference {low:.3f} to {high:.3f}"
        print(f"{name:22}", "  ".join(texts), interval)  # noqa: T201


def measure(
    network: RegionScores, images: Tensor, found: Tensor, label: int, inside: Tensor, steps: int
) -> dict[str, float]:
    """The measures of one map (1, height, width)."""
    classes = torch.tensor([label])
    insertion, deletion = (
        float(
            area_under_curve(
                perturbation_curves(network, images, found, classes, insert=insert, steps=steps)
            )
        )
        for insert in (True, False)
    )
    mass = found[0].clamp(min=0)
    share = float(mass[inside].sum() / mass.sum().clamp(min=1e-30))
    return {
        "insertion": insertion,
        "deletion": deletion,
        "difference": insertion - deletion,
        "inside": share / float(inside.float().mean()),
    }


if __name__ == "__main__":
    main()
