from __future__ import annotations

import pytest
import torch
from scipy.stats import spearmanr

from pacavit.explain.evaluation.metrics import (
    energy_inside,
    gini,
    pointing_game,
    rank_correlation,
)
from pacavit.utils.statistics import mean_interval, paired_difference


def test_pointing_and_energy_look_at_the_object() -> None:
    maps = torch.zeros(4, 4, 4)
    maps[0, 1, 1], maps[0, 3, 3] = 3, 1
    maps[1, 3, 3] = 1
    maps[2] = -1
    objects = torch.zeros(4, 4, 4, dtype=torch.bool)
    objects[:3, :2, :2] = True
    assert pointing_game(maps, objects)[:3].tolist() == [1, 0, 0.25]
    assert energy_inside(maps, objects)[:3].tolist() == [0.75, 0, 0]
    assert pointing_game(maps, objects)[3].isnan()
    assert energy_inside(maps, objects)[3].isnan()


def test_gini_is_0_for_even_maps_and_high_for_single_pixels() -> None:
    maps = torch.zeros(3, 5, 5)
    maps[0] = 2
    maps[1, 0, 0] = 7
    assert gini(maps).tolist() == pytest.approx([0, 1 - 1 / 25, 0])


def test_rank_correlation_is_spearmans() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(5, (3, 4, 6), generator=generator).float()
    second = first + torch.randn(3, 4, 6, generator=generator)
    found = rank_correlation(first, second)
    for image in range(3):
        expected = spearmanr(first[image].flatten(), second[image].flatten()).statistic
        assert found[image].item() == pytest.approx(expected)
    assert rank_correlation(torch.ones(1, 2, 2), torch.rand(1, 2, 2)).isnan().all()


def test_intervals_cover_the_mean_and_pairs_are_compared_as_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(400, generator=generator)
    second = first + 0.1 + 0.05 * torch.randn(400, generator=generator)
    interval = mean_interval(first)
    assert interval.low < interval.mean < interval.high
    assert interval.high - interval.low == pytest.approx(
        2 * 1.96 * first.std().item() / 20, rel=0.15
    )
    assert mean_interval(first) == interval
    change = paired_difference(first, second)
    assert change.mean == pytest.approx(0.1, abs=0.02)
    assert change.significant
    assert not paired_difference(first, first).significant
    assert mean_interval(torch.tensor([1.0, torch.nan])).mean == 1
    with pytest.raises(ValueError, match="not pairs"):
        paired_difference(first, first[:3])
