"""Draw the two pictures of the concept pages: patch-to-cluster attention, and the package.

::

    python examples/draw_concepts.py --out docs/pictures

Writes ``attention.svg`` and ``architecture.svg``, with the same bytes in every call.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

Array: TypeAlias = npt.NDArray[np.float64]

INK = "#1f2430"
SOFT = "#5b6478"
SIDE = 6  # of the drawn grid of patches
SCENE = ("000000", "000110", "000110", "022000", "222222", "333333")  # a cluster for each patch
COLORS = np.array([[0.55, 0.75, 0.93], [0.97, 0.77, 0.30], [0.36, 0.64, 0.42], [0.62, 0.47, 0.36]])
NAMES = ("sky", "sun", "hill", "soil")

# From the top: a package imports only packages below it. Colors are those of the steps in FLOW.
LAYERS: tuple[tuple[tuple[str, str, str], ...], ...] = (
    (("pacavit_cli", "the command, one file per verb", ""),),
    (("api", "the verbs as Python functions", ""),),
    (("compare", "several runs beside each other", ""), ("bench", "speed and size", "")),
    (
        ("report", "pages, tables, cards", "report"),
        ("demo", "the web demo", ""),
        ("serve", "the server", ""),
        ("export", "other engines", ""),
    ),
    (("explain", "heatmaps, masks and their evaluation", ""),),
    (("engine", "build, train, evaluate, weights", "engine"),),
    (("recipes", "named, complete runs (TOML)", "recipes"),),
    (("tasks", "losses, predictions, metrics", "tasks"),),
    (("detectors", "boxes and masks of objects", "models"),),
    (
        ("heads", "of dense tasks", "models"),
        ("data", "images, targets", "data"),
        ("models", "as in timm", "models"),
    ),
    (("layers", "stem, block, feed-forward", "models"),),
    (("attention", "tokens to tokens", "models"),),
    (("clustering", "patches to clusters", "models"),),
    (("testing", "conformance checks of plug-ins", ""),),
    (("utils, types, errors", "shared by all", ""),),
)
PAINT = {
    "": "#eef0f5",
    "recipes": "#f6dfb5",
    "data": "#cfe6d2",
    "tasks": "#f3cfc7",
    "models": "#cddcf4",
    "engine": "#e0d2ef",
    "report": "#d3e9ec",
}
FLOW: tuple[tuple[str, str, str], ...] = (
    ("recipes", "recipe", "one TOML file and --set changes,\nchecked before anything is built"),
    ("data", "data source", "train, val and test splits:\nimages as uint8, with their targets"),
    ("data", "loader", "transforms and augmentation, drawn\nfrom (seed, epoch, position)"),
    ("tasks", "task", "forward(batch): named losses\npredict(batch), metrics()"),
    ("models", "network", "stem, stages of blocks, head;\nblocks cluster patches, then attend"),
    ("engine", "training loop", "gradients, optimizer, schedule,\nvalidation, checkpoints"),
    ("engine", "run folder", "weights, recipe, metrics.jsonl,\ncheckpoints to resume from"),
    ("report", "report.html", "scores, curves, images,\nthe commands that repeat the run"),
)


def main() -> None:
    """Read the command line and write both pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path())
    folder = parser.parse_args().out
    for name, figure in (("attention", draw_attention()), ("architecture", draw_architecture())):
        path = folder / f"{name}.svg"
        save(figure, path)
        print(f"wrote {path}")  # noqa: T201


def save(figure: Figure, path: Path) -> None:
    """As SVG on white, text as outlines, without date and random names."""
    with mpl.rc_context({"svg.hashsalt": "pacavit", "svg.fonttype": "path"}):
        figure.savefig(path, facecolor="white", metadata={"Date": None})


def draw_attention() -> Figure:
    """From N patches to M clusters and back to N patches, with the shapes of all steps."""
    labels = np.array([[int(letter) for letter in row] for row in SCENE])
    wobble = 0.05 * np.sin(np.arange(SIDE * SIDE * 3) * 2.7).reshape(SIDE, SIDE, 3)
    patches = np.clip(COLORS[labels] + wobble, 0, 1).reshape(-1, 3)
    weights = softmax(-30 * distances(COLORS, patches))  # (M, N), rows sum to 1 over N
    clusters = weights @ patches
    attention = softmax(-12 * distances(patches, clusters))  # (N, M), rows sum to 1 over M

    figure, axes = canvas(57)
    for x, title, shape in (
        (13, "patches", "(N, C)"),
        (47, "assignment", "(M, N)"),
        (71, "clusters", "(M, C)"),
        (92.5, "attention", "(N, M)"),
        (113, "new tokens", "(N, C)"),
    ):
        write(axes, (x, 53.5), title, 16, bold=True)
        write(axes, (x, 50.2), shape, 14, SOFT)
    draw_grid(axes, patches, (4, 22), 3)
    draw_clusters(axes, weights, clusters)
    draw_heatmap(axes, attention, (88.5, 12.4), 36 / SIDE**2, width=2)
    draw_grid(axes, attention @ clusters, (104, 22), 3)

    arrow(axes, (23.2, 31), (32.2, 31))
    write(axes, (27.7, 33.5), "clustering", 12.5, bold=True)
    write(axes, (27.7, 26.6), "conv, mlp,\nk-means,\nmixture, ...", 11.5, SOFT)
    arrow(axes, (77.4, 30.4), (87.4, 30.4))
    write(axes, (82, 32.2), "keys, values", 11.5)
    arrow(axes, (97.4, 31), (103, 31))
    axes.plot((13, 13, 92.5), (20.8, 8.6, 8.6), color=INK, lw=1.6, solid_capstyle="round")
    arrow(axes, (92.5, 8.6), (92.5, 11.9))
    write(axes, (52, 10.2), "queries", 12)
    line = "Every patch attends to M clusters instead of N patches: "
    write(axes, (62, 3.6), line + "the cost grows with N x M, not with N x N.", 14)
    return figure


def draw_clusters(axes: Axes, weights: Array, clusters: Array) -> None:
    """A row for each of M clusters: its weights (M, N) over the patches, and its token (M, C)."""
    for index, name in enumerate(NAMES):
        bottom = 40.3 - 9.3 * index
        draw_heatmap(axes, weights[index].reshape(SIDE, SIDE), (43, bottom), 8 / SIDE)
        write(axes, (41.5, bottom + 4), f"cluster {index + 1}", 11.5, SOFT, align="right")
        arrow(axes, (52.2, bottom + 4), (66, bottom + 4))
        box(axes, (67, bottom + 2.4), 8, 3.2, tuple(clusters[index]))
        write(axes, (71, bottom + 1.1), f"(mostly {name})", 10.5, SOFT)
    write(axes, (59, 45.7), "weighted mean", 11, SOFT)


def draw_architecture() -> Figure:
    """Packages as layers on the left, the steps of a training run on the right."""
    figure, axes = canvas(82)
    write(axes, (36, 78.8), "packages: imports go down only", 14, bold=True)
    write(axes, (96, 78.8), "what pacavit train does", 14, bold=True)
    height, step = 4.1, 4.95
    for index, layer in enumerate(LAYERS):
        bottom = 70.9 - step * index
        width = (56 - 2 * (len(layer) - 1)) / len(layer)
        for place, (name, meaning, color) in enumerate(layer):
            left = 10 + place * (width + 2)
            box(axes, (left, bottom), width, height, PAINT[color])
            if len(layer) == 1:
                write(axes, (left + 2, bottom + height / 2), name, 11.5, bold=True, align="left")
                write(axes, (left + 21, bottom + height / 2), meaning, 11.5, SOFT, align="left")
            else:
                write(axes, (left + width / 2, bottom + 2.75), name, 11, bold=True)
                write(axes, (left + width / 2, bottom + 1.05), meaning, 10, SOFT)
    arrow(axes, (5.5, 75), (5.5, 2.6), width=2.2)
    axes.text(3.2, 39, "may import", ha="center", va="center", rotation=90, size=11, color=INK)

    step = 9.18
    for index, (color, name, meaning) in enumerate(FLOW):
        bottom = 68.3 - step * index
        box(axes, (72, bottom), 48, 6.9, PAINT[color])
        write(axes, (74, bottom + 3.45), name, 11.5, bold=True, align="left")
        write(axes, (89.5, bottom + 3.45), meaning, 10.6, SOFT, align="left")
        if index:
            arrow(axes, (96, bottom + step - 0.05), (96, bottom + 7.05))
    write(axes, (96, 1.9), "colors: the package that does it", 11, SOFT)
    return figure


def canvas(height: float) -> tuple[Figure, Axes]:
    """A figure 124 units wide, ten to an inch, without axes."""
    figure = Figure(figsize=(12.4, height / 10))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 124), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def write(
    axes: Axes,
    place: tuple[float, float],
    text: str,
    size: float,
    color: str = INK,
    *,
    bold: bool = False,
    align: str = "center",
) -> None:
    """Text around a place, or to its right or left (``align``)."""
    weight = "bold" if bold else "normal"
    axes.text(
        place[0],
        place[1] + 0.25,
        text,
        ha=align,
        va="center_baseline",
        size=size,
        weight=weight,
        color=color,
        linespacing=1.35,
    )


def softmax(scores: Array) -> Array:
    """Over the last axis."""
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True)


def distances(a: Array, b: Array) -> Array:
    """(A, C) and (B, C) -> (A, B) squared distances."""
    return ((a[:, None] - b[None]) ** 2).sum(-1)


def draw_grid(axes: Axes, colors: Array, corner: tuple[float, float], cell: float) -> None:
    """A square grid of (N, 3) colors, the first at the top left."""
    side = round(len(colors) ** 0.5)
    for index, color in enumerate(colors):
        row, column = divmod(index, side)
        place = (corner[0] + column * cell, corner[1] + (side - 1 - row) * cell)
        axes.add_patch(
            Rectangle(place, cell, cell, facecolor=tuple(color), edgecolor="white", lw=1.2)
        )


def draw_heatmap(
    axes: Axes, values: Array, corner: tuple[float, float], cell: float, width: float = 0
) -> None:
    """(rows, columns) values as shades from white (0) to ink (the largest)."""
    shades = mpl.colormaps["Purples"](values / values.max())
    rows, columns = values.shape
    width = width or cell
    for row in range(rows):
        for column in range(columns):
            place = (corner[0] + column * width, corner[1] + (rows - 1 - row) * cell)
            axes.add_patch(Rectangle(place, width, cell, facecolor=shades[row, column], lw=0))
    outline = Rectangle(corner, columns * width, rows * cell, fill=False, edgecolor=SOFT, lw=0.8)
    axes.add_patch(outline)


def box(
    axes: Axes,
    corner: tuple[float, float],
    width: float,
    height: float,
    color: str | tuple[float, ...],
) -> None:
    """A rounded box."""
    style = "round,pad=0,rounding_size=0.8"
    axes.add_patch(
        FancyBboxPatch(corner, width, height, style, facecolor=color, edgecolor=SOFT, lw=0.8)
    )


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], width: float = 1.6
) -> None:
    """A straight arrow."""
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=13,
            lw=width,
            color=INK,
            shrinkA=0,
            shrinkB=0,
        )
    )


if __name__ == "__main__":
    main()
