"""Confusion matrices as pictures, tables and sections of pages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from pacavit.report import html
from pacavit.utils.pictures import figure_bytes
from pacavit.utils.tables import csv_bytes
from pacavit.utils.text import escape_formulas

__all__ = [
    "MAX_CLASSES_WITH_COUNTS",
    "confusion_csv",
    "confusion_png",
    "confusion_section",
    "plot_confusion",
]

MAX_CLASSES_WITH_COUNTS = 30  # beyond, the counts would be too small to read
MAX_CLASSES_WITH_NAMES = 100
_MOST = 10  # confusions in a table


def plot_confusion(
    confusion: NDArray[np.int64], class_names: Sequence[str], *, title: str
) -> Figure:
    """(classes, classes) counts, rows the true class -> a figure.

    Colors show fractions of each row, so that classes of different size are comparable; counts are
    written in the cells if they are readable.

    Args:
        confusion: (classes, classes), number of images of class i predicted as class j.
        class_names: one per class, in the order of the matrix.
        title: above the picture.
    """
    num_classes = len(class_names)
    fractions = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = min(max(0.62 * num_classes, 4.0), 16.0)
    # A bare Figure, not pyplot: no global state, no display, always the Agg canvas.
    figure = Figure(figsize=(side + 2.0, side + 1.2))
    axes = figure.add_subplot()
    # The square root makes small fractions, the confusions of interest, more visible.
    image = axes.imshow(fractions, cmap="Blues", norm=PowerNorm(0.5, vmin=0.0, vmax=1.0))
    figure.colorbar(image, ax=axes, label="fraction of the true class", fraction=0.046)
    axes.set(title=title, xlabel="predicted class", ylabel="true class")
    if num_classes <= MAX_CLASSES_WITH_NAMES:
        size = 10 if num_classes <= MAX_CLASSES_WITH_COUNTS else 5
        names = [_plain(name) for name in class_names]
        axes.set_xticks(range(num_classes), names, rotation=90, fontsize=size)
        axes.set_yticks(range(num_classes), names, fontsize=size)
    if num_classes <= MAX_CLASSES_WITH_COUNTS:
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                color = "white" if fractions[row, column] > 0.3 else "black"
                axes.text(
                    column, row, str(count), ha="center", va="center", color=color, fontsize=9
                )
    return figure


def confusion_png(
    confusion: NDArray[np.int64], class_names: Sequence[str], *, title: str = ""
) -> bytes:
    """``plot_confusion`` as a PNG file."""
    figure = plot_confusion(confusion, class_names, title=title)
    return figure_bytes(figure, dpi=120, bbox_inches="tight")


def confusion_csv(confusion: NDArray[np.int64], class_names: Sequence[str]) -> bytes:
    """(classes, classes) counts, rows the true class -> a table with the names of the classes."""
    rows = zip(class_names, confusion.tolist(), strict=True)
    header = ("true class / predicted class", *class_names)
    return csv_bytes(header, ((name, *counts) for name, counts in rows))


def confusion_section(
    counts: Tensor,
    shown: NDArray[np.int64],
    class_names: Sequence[str],
    caption: str,
    *,
    split: str,
    counted: str,
) -> html.Section:
    """A matrix as a picture, and its largest fractions off the diagonal.

    Args:
        counts: (classes, classes), rows the true class.
        shown: the same counts, or percentages, as they are written into the picture.
        class_names: one per class, in the order of the matrix.
        caption: of the picture.
        split: name of the images.
        counted: what is counted, in the plural.
    """
    picture = html.picture(
        html.data_uri(confusion_png(shown, class_names), "image/png"),
        f"Confusion matrix of {len(class_names)} classes; its largest entries are in the next "
        "table",
        caption,
    )
    totals = counts.sum(1)
    fractions = (counts / totals.clamp_min(1)[:, None]).fill_diagonal_(0)
    values, places = fractions.flatten().sort(descending=True, stable=True)
    rows: list[list[str | html.Cell]] = []
    for value, place in zip(values[:_MOST].tolist(), places.tolist(), strict=False):
        if not value:
            break
        true, predicted = divmod(place, len(class_names))
        number = f"{int(counts[true, predicted]):,}"
        cell = html.Cell(html.percent(value), value)
        rows.append([class_names[true], class_names[predicted], number, cell])
    header = ["true class", "predicted class", counted, "fraction of class"]
    title = f"The most frequent confusions, {split} images"
    table = html.table(title, header, rows, text_columns=2)
    return html.Section("Confusion matrix", [html.side_by_side(picture, table)])


def _plain(name: str, longest: int = 24) -> str:
    """A shortened class name, without characters that matplotlib reads as formulas."""
    short = name if len(name) <= longest else name[: longest - 1] + "…"
    return escape_formulas(short)
