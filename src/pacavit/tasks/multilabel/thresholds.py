"""F1 over the threshold, from the counts that the metrics keep."""

from __future__ import annotations

from torch import Tensor

__all__ = ["f1_by_threshold"]


def f1_by_threshold(counts: Tensor) -> Tensor:
    """F1 of each class at each threshold: (3, classes, thresholds) -> (classes, thresholds).

    0 where a class neither occurs nor is predicted, as scikit-learn has it.
    """
    hits, alarms, misses = counts.double()
    return 2 * hits / (2 * hits + alarms + misses).clamp_min(1)
