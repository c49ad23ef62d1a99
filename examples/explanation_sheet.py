"""Draw what several methods say of the same decisions: a picture of docs/guides/explain.md.

::

    python examples/explanation_sheet.py cifar10_nano_kmeans --data FOLDER \
        --out docs/pictures/maps.jpg

One column an image of the test split, one row a method; the map over the image, of the class that
the model names.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure

from pacavit.data import LabeledImages
from pacavit.engine import load_model
from pacavit.engine.build import data_source
from pacavit.engine.predictor import Predictor
from pacavit.explain import METHODS
from pacavit.explain.render import heatmap_picture

CLASSES = (0, 1, 2, 4, 5, 7, 8, 9)
NUMBER = 11  # which of the test images of each class
SHOWN = (
    "cluster_contributions",
    "cluster_gradient",
    "class_map",
    "relevance",
    "grad_cam",
    "edges",
    "center",
)


def main() -> None:
    """Read the command line and write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="run folder, weights file or packaged name")
    parser.add_argument("--data", type=Path, help="folder with the data set, instead of the run's")
    parser.add_argument("--out", type=Path, default=Path("maps.jpg"))
    arguments = parser.parse_args()

    model = load_model(arguments.model)
    test = data_source(model.recipe, arguments.data).load("test")
    assert isinstance(test, LabeledImages)
    chosen = torch.stack([(test.labels == label).nonzero()[NUMBER, 0] for label in CLASSES])
    images, labels = test.batch(chosen)
    network = model.classifier.eval().model
    inputs = Predictor(model).prepare(images).images
    with torch.no_grad():
        probabilities, predicted = network(inputs).softmax(1).max(1)

    names = model.info.class_names
    figure = Figure(figsize=(1.35 * len(images), 1.35 * (len(SHOWN) + 1.3)), layout="constrained")
    axes = figure.subplots(len(SHOWN) + 1, len(images))
    for column, image in enumerate(images):
        label, best = names[labels[column]], names[predicted[column]]
        axes[0, column].imshow(image.permute(1, 2, 0), interpolation="nearest")
        axes[0, column].set_title(f"{label}\n→ {best} {probabilities[column]:.0%}", fontsize=8)
    for row, name in enumerate(SHOWN, 1):
        maps = METHODS.create(name, network, options={})(inputs, predicted)
        for column, (image, found) in enumerate(zip(images, maps, strict=True)):
            picture = heatmap_picture(image, found / found.max().clamp(min=1e-12))
            axes[row, column].imshow(picture.permute(1, 2, 0), interpolation="bilinear")
        axes[row, 0].set_ylabel(name.replace("_", "\n"), fontsize=8)
    for each in axes.flat:
        each.set(xticks=[], yticks=[])
    figure.savefig(arguments.out, dpi=100)
    print(f"wrote {arguments.out}")  # noqa: T201


if __name__ == "__main__":
    main()
