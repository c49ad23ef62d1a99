"""Draw the two pictures of the concept pages: patch-to-cluster attention, and the package.

::

    python examples/draw_concepts.py --out docs/pictures

Writes ``attention.svg`` and ``architecture.svg``, the same bytes at every call.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

INK = "#1f2430"
SOFT = "#5b6478"
SIDE = 6  # of the drawn grid of patches
SCENE = ("000000", "000110", "000110", "022000", "222222", "333333")  # a cluster for each patch
COLORS = np.array([[0.55, 0.75, 0.93], [0.97, 0.77, 0.30], [0.36, 0.64, 0.42], [0.62, 0.47, 0.36]])
NAMES = ("sky", "sun", "hill", "soil")

# From the top: a package imports only what lies below it. Colors mark what the flow passes.
LAYERS: tuple[tuple[tuple[str, str, str], ...], ...] = (
    (("pacavit_cli", "the command, one file per verb", ""),),
    (("api", "the verbs as Python functions", ""),),
    (("compare", "several runs beside each other", ""),),
    (("report", "pages, tables, cards", "report"), ("demo", "the web demo", "")),
    (("explain", "heatmaps, masks and their evaluation", ""),),
    (("engine", "build, train, evaluate, weights", "engine"),),
    (("recipes", "named, complete runs (TOML)", "recipes"),),
    (("tasks", "losses, predictions, metrics", "tasks"),),
    (("data", "images and targets", "data"), ("models", "networks, as in timm", "models")),
    (("layers", "stem, block, feed-forward", "models"),),
    (("attention", "tokens to tokens", "models"),),
    (("clustering", "patches to clusters", "models"),),
    (("testing", "conformance checks", ""), ("utils, types, errors", "shared records", "")),
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
    """From N patches to M clusters and back to N patches, with the shapes of all that is between."""
    labels = np.array([[int(letter) for letter in row] for row in SCENE])
    wobble = 0.05 * np.sin(np.arange(SIDE * SIDE * 3) * 2.7).reshape(SIDE, SIDE, 3)
    patches = np.clip(COLORS[labels] + wobble, 0, 1).reshape(-1, 3)
    weights = softmax(-30 * distances(COLORS, patches))  # (M, N), rows sum to 1 over N
    clusters = weights @ patches
    attention = softmax(-12 * distances(patches, clusters))  # (N, M), rows sum to 1 over M
    output = attention @ clusters

    figure = Figure(figsize=(12.4, 5.7))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 124), ylim=(0, 57))
    axes.axis("off")
    titles = (
        (13, "patches", "(N, C)"),
        (47, "assignment", "(M, N)"),
        (71, "clusters", "(M, C)"),
        (92.5, "attention", "(N, M)"),
        (113, "new tokens", "(N, C)"),
    )
    for x, title, shape in titles:
        axes.text(x, 53.5, title, ha="center", va="center", size=14, weight="bold", color=INK)
        axes.text(x, 50.2, shape, ha="center", va="center", size=12.5, color=SOFT)

    draw_grid(axes, patches, (4, 22), 3)
    draw_grid(axes, output, (104, 22), 3)
    for index, name in enumerate(NAMES):
        bottom = 40.3 - 9.3 * index
        draw_heat(axes, weights[index].reshape(SIDE, SIDE), (43, bottom), 8 / SIDE)
        axes.text(
            41.5, bottom + 4, f"cluster {index + 1}", ha="right", va="center", size=10, color=SOFT
        )
        draw_token(axes, clusters[index], (67, bottom + 2.4))
        arrow(axes, (52.2, bottom + 4), (66, bottom + 4))
        axes.text(
            59, bottom + 5, "weighted mean" if not index else "", ha="center", size=9.5, color=SOFT
        )
        axes.text(
            71, bottom + 1.1, f"(mostly {name})", ha="center", va="center", size=8.5, color=SOFT
        )
    draw_heat(axes, attention, (88.5, 12.4), 36 / SIDE**2, width=2)

    arrow(axes, (23.2, 31), (32.2, 31))
    axes.text(27.7, 33, "clustering", ha="center", size=11, color=INK, weight="bold")
    axes.text(
        27.7,
        26.6,
        "conv, mlp,\nk-means,\nmixture, ...",
        ha="center",
        va="center",
        size=9.5,
        color=SOFT,
    )
    arrow(axes, (76, 30.4), (87.4, 30.4))
    axes.text(81.7, 31.6, "keys, values", ha="center", size=10.5, color=INK)
    arrow(axes, (97.4, 31), (103, 31))
    axes.plot((13, 13, 92.5), (20.8, 8.6, 8.6), color=INK, lw=1.6, solid_capstyle="round")
    arrow(axes, (92.5, 8.6), (92.5, 11.9))
    axes.text(52, 9.5, "queries", ha="center", size=10.5, color=INK)
    axes.text(
        62,
        3.6,
        "Every patch attends to M clusters instead of N patches: the cost grows with N x M, not with N x N.",
        ha="center",
        va="center",
        size=12,
        color=INK,
    )
    return figure


def draw_architecture() -> Figure:
    """Packages as layers on the left, the way of a training run through them on the right."""
    figure = Figure(figsize=(12.4, 8.2))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 124), ylim=(0, 82))
    axes.axis("off")
    axes.text(
        36,
        78.8,
        "packages: imports go down only",
        ha="center",
        va="center",
        size=14,
        weight="bold",
        color=INK,
    )
    axes.text(
        95,
        78.8,
        "what pacavit train does",
        ha="center",
        va="center",
        size=14,
        weight="bold",
        color=INK,
    )

    height, step = 4.6, 5.7
    for index, layer in enumerate(LAYERS):
        bottom = 70.6 - step * index
        width = (56 - 2 * (len(layer) - 1)) / len(layer)
        for place, (name, meaning, color) in enumerate(layer):
            left = 10 + place * (width + 2)
            box(axes, (left, bottom), width, height, PAINT[color])
            if len(layer) == 1:
                axes.text(
                    left + 2,
                    bottom + height / 2,
                    name,
                    va="center",
                    size=11.5,
                    weight="bold",
                    color=INK,
                )
                axes.text(
                    left + 19, bottom + height / 2, meaning, va="center", size=10.5, color=SOFT
                )
            else:
                middle = left + width / 2
                axes.text(
                    middle,
                    bottom + 3,
                    name,
                    ha="center",
                    va="center",
                    size=11,
                    weight="bold",
                    color=INK,
                )
                axes.text(
                    middle, bottom + 1.25, meaning, ha="center", va="center", size=9, color=SOFT
                )
    arrow(axes, (5.5, 75), (5.5, 2.6), width=2.2)
    axes.text(3.2, 39, "may import", ha="center", va="center", rotation=90, size=11, color=INK)

    step = 9.18
    for index, (color, name, meaning) in enumerate(FLOW):
        bottom = 68.3 - step * index
        box(axes, (74, bottom), 42, 6.9, PAINT[color])
        axes.text(76, bottom + 3.45, name, va="center", size=11.5, weight="bold", color=INK)
        axes.text(90.2, bottom + 3.45, meaning, va="center", size=9.2, color=SOFT, linespacing=1.35)
        if index:
            arrow(axes, (95, bottom + step - 0.05), (95, bottom + 7.05))
    axes.text(
        95, 1.9, "colors: the package that does it", ha="center", va="center", size=9.5, color=SOFT
    )
    return figure


def softmax(scores: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True)


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, C) and (B, C) -> (A, B) squared distances."""
    return ((a[:, None] - b[None]) ** 2).sum(-1)


def draw_grid(axes: Axes, colors: np.ndarray, corner: tuple[float, float], cell: float) -> None:
    """A square grid of (N, 3) colors, the first at the top left."""
    side = round(len(colors) ** 0.5)
    for index, color in enumerate(colors):
        row, column = divmod(index, side)
        place = (corner[0] + column * cell, corner[1] + (side - 1 - row) * cell)
        axes.add_patch(
            Rectangle(place, cell, cell, facecolor=tuple(color), edgecolor="white", lw=1.2)
        )


def draw_heat(
    axes: Axes, values: np.ndarray, corner: tuple[float, float], cell: float, width: float = 0
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


def draw_token(axes: Axes, color: np.ndarray, corner: tuple[float, float]) -> None:
    """A token as a bar of its color."""
    box(axes, corner, 8, 3.2, tuple(color))


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
