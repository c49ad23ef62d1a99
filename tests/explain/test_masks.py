"""Masks hold what a map is high in."""

import numpy as np
import pytest
import torch

from pacavit.errors import PacavitError, UnknownNameError
from pacavit.explain.masks import binary_mask, keep, mask_area, mass, otsu, quantile, remove


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


def test_quantile_and_mass_keep_their_share() -> None:
    maps = torch.rand(2, 20, 30)
    assert binary_mask(maps, "quantile", 0.1).sum((1, 2)).tolist() == [60, 60]
    assert quantile(maps.flatten(1), 1.0).tolist() == maps.flatten(1).amin(1).tolist()
    kept = binary_mask(maps, "mass", 0.7)
    shares = (maps * kept).sum((1, 2)) / maps.sum((1, 2))
    assert (shares >= 0.7).all()
    assert (shares < 0.71).all()
    assert float(mass(torch.tensor([[1.0, 2.0, 7.0]]), 0.7)) == 7


def test_nothing_where_there_is_nothing() -> None:
    maps = torch.zeros(3, 4, 4)
    maps[1, :2] = torch.nan
    maps[1, 3, 3] = 1
    maps[2] = torch.nan
    for threshold in ("otsu", "quantile", "mass"):
        mask = binary_mask(maps, threshold)
        assert mask.sum((1, 2)).tolist() == [0, 1, 0]


def test_the_area_is_a_share_of_what_was_seen() -> None:
    maps = bump()
    maps[:, :, 20:] = torch.nan
    assert mask_area(binary_mask(maps, "quantile")[0], maps[0]) == pytest.approx(0.25)
    assert mask_area(torch.zeros(20, 30, dtype=torch.bool), maps[0].fill_(torch.nan)) == 0


def test_keep_and_remove_are_complements() -> None:
    image = torch.randint(0, 100, (3, 20, 30), dtype=torch.uint8)
    mask = binary_mask(bump())[0]
    kept, removed = keep(image, mask), remove(image, mask)
    assert (kept[:, mask] == image[:, mask]).all()
    assert (kept[:, ~mask] == 128).all()
    assert (removed[:, ~mask] == image[:, ~mask]).all()
    assert (removed[:, mask] == 128).all()


def test_wrong_thresholds_are_told() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'otsu'"):
        binary_mask(bump(), "otzu")
    for threshold, value in (("otsu", 0.5), ("quantile", 0.0), ("mass", 1.5)):
        with pytest.raises(PacavitError, match="cannot have the value"):
            binary_mask(bump(), threshold, value)
