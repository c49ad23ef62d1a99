"""Loss and score of a run, epoch by epoch, as one picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from pacavit.engine.log import read_metrics
from pacavit.errors import CheckpointError

__all__ = ["plot_curves"]


def plot_curves(run: str | Path, metric: str, path: str | Path | None = None) -> Path:
    """Draw training and validation loss beside the validation score.

    Args:
        run: run folder with at least one epoch done.
        metric: key of the score, such as a task's ``main_metric``.
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
    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    # The training loss may be that of augmented images with smoothed labels: not one scale with
    # the validation loss, but the shapes tell.
    left.plot(epochs, [row["train_loss"] for row in rows], label="training")
    if "val_loss" in rows[0]:  # it is the task that decides what is measured
        left.plot(epochs, [row["val_loss"] for row in rows], label="validation")
    left.set(xlabel="epoch", ylabel="loss")
    left.legend()
    right.plot(epochs, [row[f"val_{metric}"] for row in rows], color="C1")
    right.set(xlabel="epoch", ylabel=f"validation {metric.replace('_', ' ')}")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    return path
