"""Draw scenes of the data set ``shapes`` with their truth: the picture in docs/guides/train.md.

::

    python examples/shapes_sheet.py --first 8 --out docs/pictures/shapes.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pacavit.data import Scenes, render_scenes
from pacavit.data.sources.scenes import NUM_SHAPES, SHAPE_NAMES

COLUMNS = 8
ROWS = ("picture", "boxes", "instances", "semantic")


def main() -> None:
    """Read the command line and write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("shapes.png"))
    parser.add_argument("--first", type=int, default=0, help="number of the first scene")
    arguments = parser.parse_args()
    numbers = torch.arange(arguments.first, arguments.first + COLUMNS)
    draw(render_scenes(numbers, size=96)).savefig(arguments.out, dpi=80)


def draw(scenes: Scenes) -> Figure:
    """One column a scene."""
    figure = Figure(figsize=(1.3 * COLUMNS, 1.38 * len(ROWS)), layout="constrained")
    axes = figure.subplots(len(ROWS), len(scenes.images), squeeze=False)
    for column, (picture, classes) in enumerate(zip(scenes.images, scenes.classes, strict=True)):
        pixels = picture.permute(1, 2, 0).numpy()
        axes[0, column].set_title(SHAPE_NAMES[classes[0]], fontsize=9)
        axes[0, column].imshow(pixels)
        axes[1, column].imshow(pixels)
        _boxes(axes[1, column], scenes, column)
        axes[2, column].imshow(
            scenes.instances[column].numpy(), cmap=_colors(NUM_SHAPES), vmin=0, vmax=NUM_SHAPES
        )
        axes[3, column].imshow(
            scenes.semantic[column].numpy(),
            cmap=_colors(len(SHAPE_NAMES)),
            vmin=0,
            vmax=len(SHAPE_NAMES),
        )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for axis, name in zip(axes[:, 0], ROWS, strict=True):
        axis.set_ylabel(name)
    return figure


def _boxes(axis: Axes, scenes: Scenes, scene: int) -> None:
    """The subject's box is solid."""
    for number in range(NUM_SHAPES):
        if scenes.classes[scene, number] >= 0:
            x1, y1, x2, y2 = scenes.boxes[scene, number].tolist()
            style = "--" if number else "-"
            box = Rectangle(
                (x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, ec="white", ls=style, lw=1.2
            )
            axis.add_patch(box)


def _colors(num: int) -> mpl.colors.ListedColormap:
    """Dark gray for the ground and one color for each of the others."""
    return mpl.colors.ListedColormap(["#333333", *mpl.color_sequences["tab10"][:num]])


if __name__ == "__main__":
    main()
