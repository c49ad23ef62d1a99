"""Precision-recall curves of detectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pacavit.engine.evaluate import Evaluation
from pacavit.report import html
from pacavit.report.curves import svg_picture
from pacavit.report.tasks.detection.observe import Level
from pacavit.utils.pictures import figure_bytes
from pacavit.utils.text import escape_formulas

__all__ = ["precision_recall_png", "precision_recall_section"]

_MOST = 8  # classes with a curve of their own
_MEAN = "mean of the classes"
# Readable on white and on nearly black pages; line styles help where colors look alike.
_COLORS = (
    "#3b8fd6", "#e0721f", "#2aa37a", "#c66fa8", "#c9a227", "#8f7ee6", "#5fb3d9", "#8a8f96",
)  # fmt: skip
_STYLES = ("-", "--", ":", "-.")


def precision_recall_png(
    evaluation: Evaluation, class_names: Sequence[str], *, title: str
) -> bytes:
    """The curves as a PNG file.

    Args:
        evaluation: with the array ``precision`` (K, 101), at recalls 0, 0.01 to 1.
        class_names: K names.
        title: above the picture.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    _draw(axes, evaluation, class_names)
    axes.set_title(escape_formulas(title))
    return figure_bytes(figure, dpi=120)


def precision_recall_section(
    evaluation: Evaluation, class_names: Sequence[str], levels: Sequence[Level], split: str
) -> html.Section:
    """The curves, and precision and recall at some scores, as a section of a page."""
    light, dark = (
        html.data_uri(
            svg_picture(lambda axes: _draw(axes, evaluation, class_names), (6.5, 4), dark=dark),
            "image/svg+xml",
        )
        for dark in (False, True)
    )
    curves = _curves(evaluation, class_names)
    which = "each class" if len(class_names) <= _MOST else f"{_MOST} classes, high and low,"
    picture = html.picture(
        light,
        "; ".join(f"{name}: AP50 {values.mean():.3f}" for name, values in curves.items()),
        f"{split.capitalize()} images, IoU of at least .5: the precision of the detections down to "
        f"a score, by the fraction of the objects that they find (recall). Of {which} and the "
        "mean; the area below a curve is AP50.",
        dark=dark,
    )
    rows = [
        [f"{level.score:.2f}", *map(html.number, (level.precision, level.recall, level.f1))]
        for level in levels
    ]
    table = html.table(
        f"All objects of the {split} images, with the detections of at least a score, at IoU .5",
        ["score", "precision", "recall", "F1"],
        rows,
    )
    return html.Section("Precision and recall", [html.side_by_side(picture, table)])


def _draw(axes: Axes, evaluation: Evaluation, class_names: Sequence[str]) -> None:
    recall = np.linspace(0, 1, 101)
    for number, (name, values) in enumerate(_curves(evaluation, class_names).items()):
        is_mean = name == _MEAN
        axes.plot(
            recall,
            values,
            label=f"{escape_formulas(name)}, {values.mean():.2f}",
            color=axes.xaxis.label.get_color() if is_mean else _COLORS[number % len(_COLORS)],
            linestyle="-" if is_mean else _STYLES[number % len(_STYLES)],
            linewidth=3 if is_mean else 1.6,
        )
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.005), ylim=(0, 1.03))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1), title="AP50")


def _curves(evaluation: Evaluation, class_names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Precision (101,) by name: the mean, and classes from the highest AP50 to the lowest.

    Classes without objects have none.
    """
    precision = evaluation.arrays["precision"].double().numpy()
    known = [row for row in range(len(precision)) if (precision[row] >= 0).all()]
    known.sort(key=lambda row: -precision[row].mean())
    shown = known if len(known) <= _MOST else known[: _MOST // 2] + known[-_MOST // 2 :]
    curves = {class_names[row]: precision[row] for row in shown}
    return curves if len(known) <= 1 else {_MEAN: precision[known].mean(0), **curves}
