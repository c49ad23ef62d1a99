"""Masks hold what a map is high in."""

import numpy as np
import pytest
import torch

from pacavit.data.placement import Placement, Region
from pacavit.errors import PacavitError, UnknownNameError
from pacavit.explain.core.masks import (
    THRESHOLDS,
    binary_mask,
    keep,
    mask_area,
    mass,
    otsu,
    quantile,
    remove,
    restored_mask,
)


def bump() -> torch.Tensor:
    """(2, 20, 30): a bright rectangle of 6 x 10 on a dim, noisy ground."""
    maps = 0.1 * torch.rand(2, 20, 30)
    maps[:, 4:10, 5:15] += 1
    return maps


def test_otsu_parts_object_and_ground() -> None:
    mask = binary_mask(bump())
    assert mask[:, 4:10, 5:15].all()
    assert mask.sum() == 2 * 60


def test_otsu_agrees_with_a_search() -> None:
    values = torch.cat([torch.randn(400), 2 + 0.5 * torch.randn(100)])
    within = []
    candidates = torch.linspace(float(values.min()), float(values.max()), 400)[1:-1].tolist()
    for candidate in candidates:
        low, high = values[values < candidate], values[values >= candidate]
        within.append(float(len(low) * low.var(correction=0) + len(high) * high.var(correction=0)))
    best = candidates[int(np.argmin(within))]
    assert float(otsu(values[None])) == pytest.approx(best, abs=0.05)


def test_quantile_and_mass_keep_their_fraction() -> None:
    maps = torch.rand(2, 20, 30)
    assert binary_mask(maps, "quantile", 0.1).sum((1, 2)).tolist() == [60, 60]
    assert quantile(maps.flatten(1), 1.0).tolist() == maps.flatten(1).amin(1).tolist()
    kept = binary_mask(maps, "mass", 0.7)
    fractions = (maps * kept).sum((1, 2)) / maps.sum((1, 2))
    assert (fractions >= 0.7).all()
    assert (fractions < 0.71).all()
    assert float(mass(torch.tensor([[1.0, 2.0, 7.0]]), 0.7)) == 7


def test_nothing_where_there_is_nothing() -> None:
    maps = torch.zeros(3, 4, 4)
    maps[1, :2] = torch.nan
    maps[1, 3, 3] = 1
    maps[2] = torch.nan
    for threshold in ("otsu", "quantile", "mass"):
        mask = binary_mask(maps, threshold)
        assert mask.sum((1, 2)).tolist() == [0, 1, 0]


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_masks_of_photographs_have_sampled_thresholds(threshold: str) -> None:
    heatmap = torch.rand(8, 8)
    small = Placement((64, 96), Region(0, 16, 64, 64), (8, 8))
    restored = small.restore(heatmap)
    assert torch.equal(
        restored_mask(restored, small, threshold), binary_mask(restored[None], threshold)[0]
    )
    # What was seen of a narrow picture is sampled by itself.
    for size, region in (((1300, 2500), Region(0, 600, 1300, 1300)), ((9000, 64), (9, 0, 64, 64))):
        large = Placement(size, Region(*region), (8, 8))
        restored = large.restore(heatmap)
        exact = binary_mask(restored[None], threshold)[0]
        assert mask_area(restored_mask(restored, large, threshold) ^ exact, large) < 0.005


def test_nothing_is_restored_from_nothing() -> None:
    placement = Placement((4, 4), Region(0, 1, 4, 2), (2, 2))
    assert not restored_mask(placement.restore(torch.zeros(2, 2)), placement).any()


def test_the_area_is_a_fraction_of_the_input() -> None:
    maps = bump()
    maps[:, :, 20:] = torch.nan
    placement = Placement((20, 30), Region(0, 0, 20, 20), (8, 8))
    assert placement.has_border
    assert not Placement((20, 30), Region(0, 0, 20, 30), (8, 8)).has_border
    assert mask_area(binary_mask(maps, "quantile")[0], placement) == pytest.approx(0.25)
    assert mask_area(torch.zeros(20, 30, dtype=torch.bool), placement) == 0


def test_keep_and_remove_are_complements() -> None:
    image = torch.randint(0, 100, (3, 20, 30), dtype=torch.uint8)
    mask = binary_mask(bump())[0]
    kept, removed = keep(image, mask), remove(image, mask)
    assert (kept[:, mask] == image[:, mask]).all()
    assert (kept[:, ~mask] == 128).all()
    assert (removed[:, ~mask] == image[:, ~mask]).all()
    assert (removed[:, mask] == 128).all()


def test_wrong_thresholds_are_reported() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'otsu'"):
        binary_mask(bump(), "otzu")
    for threshold, value in (("otsu", 0.5), ("quantile", 0.0), ("mass", 1.5)):
        with pytest.raises(PacavitError, match="cannot have the value"):
            binary_mask(bump(), threshold, value)
