"""Which epoch's weights a run keeps, and whether it stops early, by the validation scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pacavit.recipes.schema import TrainConfig

__all__ = ["describe_outcome", "has_ended", "is_better", "is_finished"]


def is_better(score: float, best: float | None) -> bool:
    """Whether a score is higher than the best one so far; of equal scores the first is kept."""
    return not math.isnan(score) and (best is None or score > best)


def has_ended(epoch: int, best_epoch: int | None, config: TrainConfig) -> bool:
    """Whether training ends after an epoch: it is the last one, or patience is exhausted.

    Args:
        epoch: number of finished epochs.
        best_epoch: the one with the best validation score, counted from 1; None: none has a score.
        config: with ``epochs`` and ``patience``.
    """
    if epoch >= config.epochs:
        return True
    return config.patience is not None and epoch - (best_epoch or 0) >= config.patience


def is_finished(rows: Sequence[Mapping[str, Any]], metric: str, config: TrainConfig) -> bool:
    """Whether a run with these rows of ``metrics.jsonl`` was trained to its end.

    Args:
        rows: one per epoch.
        metric: the main metric of the task.
        config: of the training.
    """
    return has_ended(len(rows), _best_epoch(rows, metric), config)


def describe_outcome(
    rows: Sequence[Mapping[str, Any]], metric: str, config: TrainConfig
) -> list[str]:
    """Sentences on why a finished run stopped early, and on the epoch whose weights it kept.

    Empty where neither was asked for. The arguments are those of ``is_finished``.
    """
    lines = []
    number, name = len(rows), metric.replace("_", " ")
    if number < config.epochs:
        lines.append(
            f"stopped after epoch {number} of {config.epochs}: no better validation {name} for "
            f"{config.patience} {'epoch' if config.patience == 1 else 'epochs'} (train.patience)"
        )
    best = _best_epoch(rows, metric)
    if config.keep == "best" and best is not None:
        lines.append(
            f"kept the weights of epoch {best}, with the best validation {name}, "
            f"{rows[best - 1][f'val_{metric}']:.4f} (train.keep)"
        )
    elif config.patience is not None:
        lines.append(f"kept the weights of the last epoch, {number} (train.keep)")
    return lines


def _best_epoch(rows: Sequence[Mapping[str, Any]], metric: str) -> int | None:
    """The first epoch with the best validation score, counted from 1."""
    best: float | None = None
    best_epoch = None
    for epoch, row in enumerate(rows, 1):
        score = row[f"val_{metric}"]
        if is_better(score, best):
            best, best_epoch = score, epoch
    return best_epoch
