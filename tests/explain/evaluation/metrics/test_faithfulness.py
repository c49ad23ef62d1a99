from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pacavit.explain.evaluation.metrics import (
    area_under_curve,
    blurred,
    mean_color,
    perturbation_curves,
    still_top1,
    top_area,
)


def corner(images: Tensor) -> Tensor:
    """A network that knows two classes by the brightness of the upper left quarter alone."""
    bright = images[:, :, :8, :8].mean((1, 2, 3))
    return torch.stack([bright * 10, torch.zeros_like(bright)], 1)


@pytest.fixture
def images() -> Tensor:
    images = torch.zeros(3, 3, 16, 16)
    images[:, :, :8, :8] = 1
    return images


def map_of(rows: slice) -> Tensor:
    maps = torch.zeros(3, 16, 16)
    maps[:, rows, rows] = 1
    return maps


def test_curves_have_both_ends_and_tell_a_true_map_from_a_false_one(images: Tensor) -> None:
    classes = torch.zeros(3, dtype=torch.int64)
    true, false = map_of(slice(8)), map_of(slice(8, 16))
    for insert in (False, True):
        curves = [
            perturbation_curves(corner, images, maps, classes, insert=insert, steps=8)
            for maps in (true, false)
        ]
        whole = corner(images).softmax(1)[:, 0]
        torch.testing.assert_close(curves[0][:, -1 if insert else 0], whole)
        torch.testing.assert_close(curves[0][:, [0, -1]], curves[1][:, [0, -1]])
        better, worse = (area_under_curve(each) for each in curves)
        assert ((better > worse) if insert else (better < worse)).all()


def test_least_important_first_is_the_other_way_round(images: Tensor) -> None:
    classes = torch.zeros(3, dtype=torch.int64)
    maps = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    one = perturbation_curves(corner, images, maps, classes, insert=False, least_first=True)
    other = perturbation_curves(corner, images, -maps, classes, insert=False)
    torch.testing.assert_close(one, other)


def test_the_area_under_a_curve_is_that_of_trapezoids() -> None:
    curves = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.0]])
    assert area_under_curve(curves).tolist() == [1.0, 0.5, 0.5]


def test_masks_have_equal_areas_and_equal_values_no_preferred_corner() -> None:
    maps = torch.cat([torch.zeros(1, 16, 16), torch.rand(1, 16, 16)])
    maps[1, 0, 0] = torch.nan
    masks = top_area(maps, 0.25)
    assert masks.sum((1, 2)).tolist() == [64, 64]
    assert not masks[1, 0, 0]
    assert 16 < masks[0, :8].sum() < 48


def test_keeping_the_evidence_keeps_the_class_and_removing_it_does_not(images: Tensor) -> None:
    images = images - 0.5
    classes, mask = torch.zeros(3, dtype=torch.int64), map_of(slice(8)).bool()

    def gray(images: Tensor) -> Tensor:
        return torch.full_like(images, -0.5)

    for masks, keep, right in ((mask, True, True), (mask, False, False), (~mask, True, False)):
        found = still_top1(corner, images, masks, classes, keep=keep, baseline=gray)
        assert found.tolist() == [right] * 3


def test_baselines_keep_the_color_and_lose_the_detail() -> None:
    images = torch.randn(2, 3, 32, 20, generator=torch.Generator().manual_seed(0))
    assert mean_color(images).shape == blurred(images).shape == images.shape
    torch.testing.assert_close(mean_color(images).mean((2, 3)), images.mean((2, 3)))
    assert blurred(images).std() < 0.3 * images.std()
