"""Thresholds for multi-label metrics, and F1 at each of them from counts."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["THRESHOLDS", "f1_by_threshold"]

THRESHOLDS: Tensor = torch.arange(1, 100) / 100
"""(thresholds,): 0.01, 0.02 .. 0.99."""


def f1_by_threshold(counts: Tensor) -> Tensor:
    """F1 of each class at each threshold: (3, classes, thresholds) -> (classes, thresholds).

    F1 is 0 if a class neither occurs nor is predicted, as in scikit-learn.
    """
    hits, alarms, misses = counts.double()
    return 2 * hits / (2 * hits + alarms + misses).clamp_min(1)
