"""Draw the clusters of a trained model for a few test images: the picture in the README.

::

    python examples/cluster_maps.py cifar10_nano_conv --data FOLDER --out docs/clusters.png

For every image: the partition of its patches at the two stages that have clusters (each patch in
the color of the cluster in which it has the largest weight), and heatmaps of the three clusters of
the last of these stages whose effective number of patches is closest to eight.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from pacavit import Assignment, Clustering, Grid
from pacavit.data import LabeledImages
from pacavit.engine import load_model
from pacavit.engine.build import data_source
from pacavit.engine.predictor import Predictor

CLASSES = (0, 1, 3, 5, 7, 8)
HEATMAPS = 3


def main() -> None:
    """Read the command line and write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="run folder, weights file or packaged name")
    parser.add_argument("--data", type=Path, help="folder with the data set, instead of the run's")
    parser.add_argument("--out", type=Path, default=Path("clusters.png"))
    arguments = parser.parse_args()

    model = load_model(arguments.model)
    test = data_source(model.recipe, arguments.data).load("test")
    if not isinstance(test, LabeledImages):
        raise SystemExit(f"{model.info.name} has no labels to choose images by")
    chosen = torch.stack([(test.labels == label).nonzero()[7, 0] for label in CLASSES])
    images, labels = test.batch(chosen)

    maps: list[tuple[Grid, Assignment]] = []

    def record(_: nn.Module, inputs: tuple[Any, ...], answer: Assignment) -> None:
        maps.append((inputs[1], answer))

    for module in model.task.model.modules():
        if isinstance(module, Clustering):
            module.register_forward_hook(record)
    predictor = Predictor(model)
    batch = predictor.prepare(test[index].image for index in chosen.tolist())
    probabilities = [record.probabilities for record in predictor.records(batch)]

    names = model.info.class_names
    titles = [
        f"{names[label]}\n→ {names[int(each.argmax())]} {float(each.max()):.0%}"
        for label, each in zip(labels.tolist(), probabilities, strict=True)
    ]
    draw(images, titles, maps).savefig(arguments.out, dpi=110)
    print(f"wrote {arguments.out}")  # noqa: T201


def draw(images: Tensor, titles: list[str], maps: list[tuple[Grid, Assignment]]) -> Figure:
    """One column per image: the image, a partition per stage, heatmaps of the last stage."""
    height, width = images.shape[2:]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    rows = ["image", *(f"partition, stage {i}" for i in range(len(maps)))]
    rows += [f"cluster, stage {len(maps) - 1}"] * HEATMAPS
    figure = Figure(figsize=(1.55 * len(images), 1.5 * len(rows) + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), len(images))
    for column, (image, title) in enumerate(zip(images, titles, strict=True)):
        picture = image.permute(1, 2, 0).numpy()
        axes[0, column].imshow(picture)
        axes[0, column].set_title(title, fontsize=9)
        row = 1
        for grid, (weights, log_mass, _) in maps:
            partition = (weights[column].log() + log_mass[column, :, None]).argmax(0)
            axes[row, column].imshow(picture)
            colors = mpl.colormaps["tab20"](partition.view(grid).numpy() % 20)
            axes[row, column].imshow(colors, alpha=0.65, extent=extent)
            row += 1
        grid, assignment = maps[-1]
        weights = assignment.weights[column]
        patches_gathered = 1 / weights.square().sum(1)
        for cluster in (patches_gathered.log() - math.log(8)).abs().argsort()[:HEATMAPS]:
            heatmap = weights[cluster].view(grid)
            axes[row, column].imshow(picture)
            axes[row, column].imshow(
                heatmap.numpy(),
                cmap="inferno",
                alpha=0.6,
                interpolation="bilinear",
                extent=extent,
            )
            row += 1
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    for axis, name in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(name, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
