"""Pictures of the learning curves of a run: loss and score by epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pacavit.engine.run.log import read_metrics
from pacavit.errors import CheckpointError
from pacavit.utils.pictures import figure_bytes

__all__ = ["curves_svg", "loss_curves", "plot_curves", "score_curves", "svg_picture"]

_FEW = 30  # up to this many epochs, each is marked, because a single epoch makes no line
_COLORS = {"training": "C0", "validation": "C1"}
# (ink, C0 and C1): readable on a white or nearly black page, also by color-blind readers.
_LIGHT = ("#57606a", ("#0b5cad", "#c2410c"))
_DARK = ("#9aa5b1", ("#6cb6ff", "#ffa657"))


def plot_curves(run: str | Path, metric: str, path: str | Path | None = None) -> Path:
    """Draw training and validation loss, and beside them the validation score.

    Args:
        run: run folder with at least one finished epoch.
        metric: name of the score, such as a task's ``main_metric``.
        path: PNG file to write; by default ``curves.png`` in the run folder.

    Returns:
        The file.

    Raises:
        CheckpointError: the run has no finished epoch.
    """
    rows = read_metrics(Path(run))
    if not rows:
        raise CheckpointError(f"{run} has no finished epoch to draw")
    path = Path(run) / "curves.png" if path is None else Path(path)
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw(left, loss_curves(rows), "loss")
    _draw(right, score_curves(rows, metric), f"validation {metric.replace('_', ' ')}")
    figure.savefig(path, dpi=120)
    return path


def loss_curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Losses of a run by epoch, of "training" and, if measured, "validation".

    The training loss may include augmentation and label smoothing; then the shapes of the two
    curves are comparable, but not their values.

    Args:
        rows: of ``metrics.jsonl``, at least one.
    """
    lines = {"training": [row["train_loss"] for row in rows]}
    if "val_loss" in rows[0]:  # the task decides what is measured
        lines["validation"] = [row["val_loss"] for row in rows]
    return lines


def score_curves(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, list[float]]:
    """A validation score of a run by epoch; arguments as in ``loss_curves``, ``plot_curves``."""
    return {"validation": [row[f"val_{metric}"] for row in rows]}


def curves_svg(lines: Mapping[str, Sequence[float]], ylabel: str, *, dark: bool = False) -> bytes:
    """Values by epoch as an SVG picture with a transparent background.

    Args:
        lines: values of epochs 1, 2, ..., of "training", "validation" or both.
        ylabel: name of the values.
        dark: for a dark page.
    """
    return svg_picture(lambda axes: _draw(axes, lines, ylabel), (5, 3), dark=dark)


def svg_picture(
    draw: Callable[[Axes], None], size: tuple[float, float], *, dark: bool = False
) -> bytes:
    """An SVG picture with a transparent background, for pages.

    Args:
        draw: draws on axes, with the colors C0 and C1.
        size: width and height in inches.
        dark: for a dark page.
    """
    with mpl.rc_context(_svg_style(dark=dark)):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        return figure_bytes(figure, "svg", transparent=True, metadata={"Date": None})


def _svg_style(*, dark: bool) -> dict[Any, Any]:
    ink, colors = _DARK if dark else _LIGHT
    return {
        **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color"), ink),
        **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), ink),
        "axes.facecolor": "none",
        "axes.prop_cycle": cycler(color=colors),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "svg.fonttype": "none",  # text stays text, in a font of the reader's machine
        "svg.hashsalt": "pacavit",  # equal runs give equal files
    }


def _draw(axes: Axes, lines: Mapping[str, Sequence[float]], ylabel: str) -> None:
    for name, values in lines.items():
        marker = "." if len(values) <= _FEW else ""
        epochs = range(1, len(values) + 1)
        axes.plot(epochs, values, color=_COLORS[name], label=name, marker=marker)
    axes.set(xlabel="epoch", ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if len(lines) > 1:
        axes.legend(frameon=False)
