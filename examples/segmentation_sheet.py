"""Draw explained segmentations: the picture in the guide on explanations.

::

    python examples/segmentation_sheet.py RUN --data FOLDER --out docs/pictures/segmentations.jpg

One row per image of the test split: the image, its predicted classes, the classes of the clusters
alone, the clusters of its three largest classes, and the map of a region, the largest connected one
of the class that is named with ``--ask``, by default of its third largest class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from pacavit.engine import load_model
from pacavit.engine.build import data_source
from pacavit.explain import (
    ExplainOptions,
    SegmentationExplanation,
    connected_region,
    explainer_of,
    find_class,
)
from pacavit.explain.render import fitted_size, thumbnail
from pacavit.explain.render_segmentation import (
    LETTERS,
    class_entries,
    class_picture,
    cluster_label_picture,
    cluster_picture,
    region_picture,
    sheet,
)
from pacavit.tasks.segmentation.pictures import with_legend
from pacavit.utils.pictures import pillow_image

CLUSTERS = 3
LONGER = 240  # pixels of the longer side of a picture


def main() -> None:
    """Read the command line and write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="run folder or weights file of a segmentation")
    parser.add_argument("--data", type=Path, help="folder with the data set, instead of the run's")
    parser.add_argument("--images", default="0.1,0.4,0.7", help="positions in the split, 0 to 1")
    parser.add_argument("--ask", help="class to explain; default: the third largest of each image")
    parser.add_argument("--out", type=Path, default=Path("segmentations.jpg"))
    arguments = parser.parse_args()

    model = load_model(arguments.model)
    test = data_source(model.recipe, arguments.data, model.info).load("test")
    explain = explainer_of(model)
    tiles: list[tuple[Tensor, str]] = []
    colors: dict[str, tuple[int, int, int]] = {}
    for fraction in map(float, arguments.images.split(",")):
        position = min(int(fraction * len(test)), len(test) - 1)
        image, path = test[position].image.cpu(), Path(f"image {position}")
        cpu = torch.device("cpu")
        found = explain(model, ExplainOptions(region=(0, 0)), cpu)(image, path)
        if not isinstance(found, SegmentationExplanation):
            raise SystemExit(f"{arguments.model} does not segment images")
        wanted = None if arguments.ask is None else find_class(arguments.ask, model.info)
        pixel = pixel_of(found.labels, chosen_class(found, wanted))
        asked = explain(model, ExplainOptions(region=pixel), cpu)(image, path)
        assert isinstance(asked, SegmentationExplanation)
        tiles += row(asked)
        assert asked.clusters is not None
        colors |= dict(
            class_entries(asked, torch.cat([asked.labels, asked.clusters.labels]).unique())
        )
    picture = with_legend(sheet(tiles, columns=4 + CLUSTERS), list(colors.items()), LETTERS)
    pillow_image(picture).save(arguments.out, quality=88)
    print(f"wrote {arguments.out}")  # noqa: T201


def chosen_class(found: SegmentationExplanation, wanted: int | None) -> int:
    """The wanted class if it is in the image, else the third largest, or the last there is."""
    present = [label for label, _ in found.areas()]
    return wanted if wanted in present else present[min(2, len(present) - 1)]


def pixel_of(labels: Tensor, label: int) -> tuple[int, int]:
    """(x, y) of a pixel in the largest connected region of a class."""
    left, best, pixel = labels == label, 0, (0, 0)
    while left.any():
        row, column = left.nonzero()[0].tolist()
        region = connected_region(labels, row, column)
        left = left & ~region
        if int(region.sum()) > best:
            best, pixel = int(region.sum()), (column, row)
    return pixel


def row(found: SegmentationExplanation) -> list[tuple[Tensor, str]]:
    """The pictures of an image, all of one size, with their captions."""
    size = fitted_size(found.placement.image_size, LONGER)
    clusters, region = found.clusters, found.regions[0]
    if clusters is None:
        raise SystemExit("the head of this model has no clusters")
    alone = f"clusters alone, {clusters.agreement:.1%} the same"
    pictures = [
        (thumbnail(found.image, size), "image"),
        (thumbnail(class_picture(found), size), "predicted classes"),
        (cluster_label_picture(found, clusters, LONGER), alone),
    ]
    for label in ([label for label, _ in found.areas()] * CLUSTERS)[:CLUSTERS]:
        picture = cluster_picture(found, clusters.weights[label], LONGER)
        pictures.append((picture, f"cluster of {found.names[label]}"))
    why = f"why is this {found.names[region.label]}?"
    return [*pictures, (thumbnail(region_picture(found, region), size), why)]


if __name__ == "__main__":
    main()
