"""Intervals over images and spreads over seeds."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm

from pacavit.utils.statistics import (
    Interval,
    Spread,
    mean_interval,
    normal_interval,
    paired_difference,
    proportion_interval,
    proportion_margin,
    spread,
)


def test_bootstrap_intervals_are_those_of_theory() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)) + 3
    interval = mean_interval(values)
    assert interval.mean == pytest.approx(values.mean().item())
    half = norm.ppf(0.975) * values.std().item() / 20
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.1)
    assert mean_interval(values) == interval  # the same draws


def test_images_without_a_value_are_ignored() -> None:
    assert mean_interval(torch.tensor([1.0, torch.nan, 1.0])) == Interval(1, 1, 1)
    assert math.isnan(mean_interval(torch.tensor([torch.nan])).mean)


def test_differences_are_of_pairs() -> None:
    first = torch.arange(50.0)
    change = paired_difference(first, first + 1)
    assert change == Interval(1, 1, 1)
    assert change.significant
    assert not paired_difference(first, first).significant
    with pytest.raises(ValueError, match="not pairs"):
        paired_difference(first, first[:3])


def test_normal_intervals_are_mcnemars() -> None:
    # 30 images that only the first has right, 50 that only the second has, of 1,000.
    change = normal_interval(np.array([-1] * 30 + [1] * 50 + [0] * 920))
    assert change.mean == pytest.approx(0.02)
    half = 1.96 * math.sqrt(80 / 1000 - 0.02**2) / math.sqrt(1000)
    assert change.high - change.mean == pytest.approx(half)
    assert change.mean - change.low == pytest.approx(half)


def test_differences_in_words() -> None:
    assert Interval(0.01, 0.004, 0.016).as_difference(3) == "+0.010 (+0.004 to +0.016)"
    assert Interval(-0.01, -0.02, 0.0).as_difference(2) == (
        "-0.01 (-0.02 to +0.00), no significant difference"
    )
    assert not Interval(math.nan, math.nan, math.nan).significant


def test_the_margin_of_an_accuracy() -> None:
    assert proportion_margin(0.9, 10_000) == pytest.approx(0.00588)


@pytest.mark.parametrize(("correct", "number"), [(10, 10), (0, 10), (7, 10), (9000, 10_000)])
def test_wilsons_interval_is_that_of_scipy_and_stays_within_0_and_1(
    correct: int, number: int
) -> None:
    fraction = correct / number
    found = proportion_interval(fraction, number)
    expected = binomtest(correct, number).proportion_ci(method="wilson")
    assert found.mean == fraction
    assert found[1:] == pytest.approx((expected.low, expected.high), abs=1e-4)
    assert 0 <= found.low <= fraction <= found.high <= 1


def test_seeds_spread() -> None:
    assert spread([1.0, 3.0]) == Spread(2, math.sqrt(2))
    assert spread([1.0]) == Spread(1, None)
