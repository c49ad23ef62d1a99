"""How sure a mean over images is, and whether two methods differ."""

from __future__ import annotations

import numpy as np
from scipy.stats import bootstrap
from torch import Tensor

from pacavit.utils.statistics import Interval

__all__ = ["mean_interval", "paired_difference"]

_RESAMPLES = 2000


def mean_interval(values: Tensor, *, seed: int = 0) -> Interval:
    """Mean and percentile bootstrap over images: (B,) -> three numbers; NaN has no say.

    Args:
        values: a number an image; NaN where an image has none.
        seed: of the resampling.
    """
    numbers = values.double().cpu().numpy()
    numbers = numbers[~np.isnan(numbers)]
    mean = float(numbers.mean()) if len(numbers) else float("nan")
    if len(numbers) < 2 or np.ptp(numbers) == 0:
        return Interval(mean, mean, mean)
    found = bootstrap(
        (numbers,), np.mean, n_resamples=_RESAMPLES, batch=100, method="percentile", rng=seed
    )
    return Interval(
        mean, float(found.confidence_interval.low), float(found.confidence_interval.high)
    )


def paired_difference(first: Tensor, second: Tensor, *, seed: int = 0) -> Interval:
    """The mean of second minus first, image by image: (B,) and (B,) -> three numbers.

    Raises:
        ValueError: the two are not of the same images.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"not pairs: {tuple(first.shape)} and {tuple(second.shape)}")
    return mean_interval(second.double() - first.double(), seed=seed)
