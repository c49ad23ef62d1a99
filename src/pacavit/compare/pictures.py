"""Pictures of a comparison: scores and learning curves."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pacavit.compare.results import Comparison, Row
from pacavit.report.curves import svg_picture
from pacavit.utils.pictures import figure_bytes
from pacavit.utils.statistics import Interval, proportion_interval

__all__ = ["bars_png", "bars_svg", "curves_png", "curves_svg", "draw_bars"]


def bars_png(comparison: Comparison) -> bytes:
    """A bar per row with its 95 % interval over images and a dot per seed, as a PNG picture."""
    return _png(comparison, draw_bars)


def bars_svg(comparison: Comparison, *, dark: bool = False) -> bytes:
    """The same as an SVG picture with a transparent background."""
    return _svg(comparison, draw_bars, dark=dark)


def curves_png(comparison: Comparison) -> bytes:
    """The main validation score by epoch, one line per row, as a PNG picture."""
    return _png(comparison, _draw_curves)


def curves_svg(comparison: Comparison, *, dark: bool = False) -> bytes:
    """The same as an SVG picture with a transparent background."""
    return _svg(comparison, _draw_curves, dark=dark)


def _png(comparison: Comparison, draw: Callable[[Axes, Comparison], None]) -> bytes:
    figure = Figure(figsize=(6, 4), layout="constrained")
    draw(figure.subplots(), comparison)
    return figure_bytes(figure, dpi=120)


def _svg(comparison: Comparison, draw: Callable[[Axes, Comparison], None], *, dark: bool) -> bytes:
    return svg_picture(lambda axes: draw(axes, comparison), (5, 3.4), dark=dark)


def draw_bars(axes: Axes, comparison: Comparison) -> None:
    """A bar per row, its 95 % interval if there is one, and a dot per seed if there are several."""
    rows = comparison.rows[::-1]  # the first row on top
    heading, main = comparison.main
    is_proportion = main in comparison.report.proportions
    intervals = [_interval(row, main, is_proportion=is_proportion) for row in rows]
    means = [each.mean for each in intervals]
    axes.barh(
        [row.value for row in rows],
        means,
        xerr=np.array([(each.mean - each.low, each.high - each.mean) for each in intervals]).T
        if is_proportion
        else None,
        color="C0",
        ecolor="0.5",
        capsize=3,
        height=0.6,
    )
    for position, row in enumerate(rows):
        seeds = [run.evaluation.scores[main] for run in row.runs]
        if len(seeds) > 1:
            axes.plot(seeds, [position] * len(seeds), "o", color="C1", markersize=4)
        axes.annotate(
            f"{means[position]:.4f}",
            (max(*seeds, intervals[position].high), position),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )
    lowest = min(each.low for each in intervals)
    highest = max(each.high for each in intervals)
    room = max(0.02, highest - lowest)
    axes.set(xlabel=f"test {heading}", xlim=(max(0, lowest - room), highest + 0.6 * room))
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= 1])
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def _interval(row: Row, name: str, *, is_proportion: bool) -> Interval:
    """A mean score, and its 95 % interval over other test images if it is a proportion of them."""
    mean = row.score(name).mean
    if not is_proportion:
        return Interval(mean, mean, mean)
    return proportion_interval(mean, row.runs[0].evaluation.num_images)


def _draw_curves(axes: Axes, comparison: Comparison) -> None:
    colors = mpl.color_sequences["tab10" if len(comparison.rows) <= 10 else "tab20"]
    heading, main = comparison.main
    for number, row in enumerate(comparison.rows):
        values, color = _mean_curve(row, f"val_{main}"), colors[number % len(colors)]
        axes.plot(range(1, len(values) + 1), values, color=color, label=row.value, linewidth=1.4)
    axes.set(xlabel="epoch", ylabel=f"validation {heading}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")


def _mean_curve(row: Row, name: str) -> list[float]:
    curves = [[epoch[name] for epoch in run.epochs] for run in row.runs]
    shortest = min(map(len, curves))
    return np.mean([curve[:shortest] for curve in curves], axis=0).tolist()
