"""Draw scenes, their true objects, and the clusters of a model: see docs/results/explanations.md.

::

    pacavit train shapes_nano --out run
    python examples/partition_sheet.py run --out docs/pictures/shapes-clusters.png

One column a scene of the test split; below it what lies where, the clusters of every stage, and the
map of the class that the model names.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

from pacavit.engine import build, load_model
from pacavit.engine.weights.load import LoadedModel
from pacavit.explain import ImageExplanation, default_method, explain_split
from pacavit.explain.render import heatmap_picture, partition_picture

SCENES = range(8)


def main() -> None:
    """Read the command line and write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="run folder or weights file, trained on shapes")
    parser.add_argument("--out", type=Path, default=Path("shapes-clusters.png"))
    arguments = parser.parse_args()
    draw(load_model(arguments.model)).savefig(arguments.out, dpi=100)
    print(f"wrote {arguments.out}")  # noqa: T201


def draw(model: LoadedModel) -> Figure:
    """A column a scene: what is seen, what is there, and what the model makes of it."""
    source, device = build.data_source(model.recipe), torch.device("cpu")
    objects = source.instances("test", torch.tensor(SCENES))
    if objects is None:
        raise SystemExit(f"{model.info.name} has no masks of objects to compare with")
    images = build.image_set(source, "test", device)
    method = default_method(model.classifier.model)
    explained = explain_split(model, images, SCENES, method=method, device=device)
    columns = [
        column(explanation, each, method)
        for explanation, each in zip(explained, objects, strict=True)
    ]
    figure = Figure(figsize=(1.3 * len(columns), 1.3 * len(columns[0])), layout="constrained")
    axes = figure.subplots(len(columns[0]), len(columns))
    for place, (explanation, pictures) in enumerate(zip(explained, columns, strict=True)):
        for row, (name, picture) in enumerate(pictures.items()):
            axes[row, place].imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
            axes[row, place].set(xticks=[], yticks=[])
            if not place:
                axes[row, place].set_ylabel(name, fontsize=8)
        named, probability = explanation.explained
        axes[0, place].set_title(f"{named} {probability:.0%}", fontsize=8)
    return figure


def column(
    explanation: ImageExplanation, objects: torch.Tensor, method: str
) -> dict[str, torch.Tensor]:
    """Pictures (3, H, W) uint8 of one scene, by what they show."""
    image, placement = explanation.image, explanation.placement
    colors = torch.from_numpy(mpl.colormaps["tab10"](objects.numpy(), bytes=True)[..., :3])
    colors[objects == 0] = 0
    found = {"scene": image, "objects": colors.permute(2, 0, 1)}
    for clusters in explanation.stages:
        name = f"clusters,\nstage {clusters.stage}"
        found[name] = partition_picture(image, clusters, placement)
    found[explanation.title(method).split(",")[0].replace(" ", "\n")] = heatmap_picture(
        image, explanation.restored(method)
    )
    return found


if __name__ == "__main__":
    main()
