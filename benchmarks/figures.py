"""Statistics of repeated measurements in benchmarks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

__all__ = ["quartiles"]


def quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [round(value, 3) for value in statistics.quantiles(values, n=4)]
