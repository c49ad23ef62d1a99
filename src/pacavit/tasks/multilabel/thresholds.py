"""The thresholds that are tried, and F1 over them from the counts that the metrics keep."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["THRESHOLDS", "f1_by_threshold"]

THRESHOLDS: Tensor = torch.arange(1, 100) / 100
"""(thresholds,): 0.01, 0.02 .. 0.99."""


def f1_by_threshold(counts: Tensor) -> Tensor:
    """F1 of each class at each threshold: (3, classes, thresholds) -> (classes, thresholds).

    0 where a class neither occurs nor is predicted, as scikit-learn has it.
    """
    hits, alarms, misses = counts.double()
    return 2 * hits / (2 * hits + alarms + misses).clamp_min(1)
