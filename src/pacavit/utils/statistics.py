"""Means with their uncertainty: intervals over images, standard deviations over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

__all__ = [
    "Interval",
    "Spread",
    "mean_interval",
    "normal_interval",
    "paired_difference",
    "proportion_interval",
    "proportion_margin",
    "spread",
]

_NORMAL = 1.96  # standard errors of a two-sided 95 % interval
_RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean over images with its 95 % confidence interval for other images of the same kind.

    Attributes:
        mean: over the images that have a value.
        low: lower end of the interval.
        high: its upper end.
    """

    mean: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether a difference is significant: its interval does not contain 0."""
        return self.low > 0 or self.high < 0

    def as_difference(self, digits: int) -> str:
        """A difference as text, with ``digits`` digits after the point."""
        mean, low, high = (f"{value:+.{digits}f}" for value in self)
        note = "" if self.significant else ", no significant difference"
        return f"{mean} ({low} to {high}){note}"


class Spread(NamedTuple):
    """A mean over seeds and its sample standard deviation; None for a single seed."""

    mean: float
    deviation: float | None


def mean_interval(values: Tensor, *, seed: int = 0) -> Interval:
    """Mean and percentile bootstrap interval over images: (B,) -> Interval.

    Args:
        values: one number per image; NaN, for images without a value, is ignored.
        seed: of the resampling.
    """
    # Imported here because scipy.stats takes most of a second to load.
    from scipy.stats import bootstrap

    numbers = values.double().cpu().numpy()
    numbers = numbers[~np.isnan(numbers)]
    mean = float(numbers.mean()) if len(numbers) else math.nan
    if len(numbers) < 2 or np.ptp(numbers) == 0:
        return Interval(mean, mean, mean)
    found = bootstrap(
        (numbers,), np.mean, n_resamples=_RESAMPLES, batch=100, method="percentile", rng=seed
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def paired_difference(first: Tensor, second: Tensor, *, seed: int = 0) -> Interval:
    """The mean of second minus first over pairs of images, by bootstrap: (B,), (B,) -> Interval.

    Raises:
        ValueError: the two differ in shape, or are not vectors.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"not pairs: {tuple(first.shape)} and {tuple(second.shape)}")
    return mean_interval(second.double() - first.double(), seed=seed)


def normal_interval(values: ArrayLike) -> Interval:
    """Mean and normal 95 % interval: (B,) -> Interval.

    For the differences -1, 0 and 1 between two classifiers it corresponds to McNemar's test.
    """
    numbers = np.asarray(values, dtype=np.float64)
    mean, margin = float(numbers.mean()), _NORMAL * float(numbers.std()) / math.sqrt(numbers.size)
    return Interval(mean, mean - margin, mean + margin)


def proportion_margin(fraction: float, number: int) -> float:
    """Half the width of the normal 95 % interval of an accuracy, or of another fraction.

    Args:
        fraction: 0 to 1.
        number: images that it was measured on.
    """
    return _NORMAL * math.sqrt(fraction * (1 - fraction) / number)


def proportion_interval(fraction: float, number: int) -> Interval:
    """Wilson's 95 % interval of an accuracy, or of another fraction; always within 0..1.

    Unlike the normal interval it has a width at 0 and 1 too (Wilson, 1927; recommended for small
    numbers by Brown, Cai and DasGupta, Statistical Science 16(2), 2001).

    Args:
        fraction: 0 to 1.
        number: images that it was measured on, at least one.
    """
    squared = _NORMAL**2
    center = (fraction + squared / (2 * number)) / (1 + squared / number)
    variance = fraction * (1 - fraction) / number + squared / (4 * number**2)
    half = _NORMAL * math.sqrt(variance) / (1 + squared / number)
    # At 0 and 1 rounding may put an end beyond the fraction itself.
    low, high = max(0.0, center - half), min(1.0, center + half)
    return Interval(fraction, min(fraction, low), max(fraction, high))


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation over seeds."""
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None)
