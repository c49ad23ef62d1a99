from pathlib import Path

import pytest
import torch

from pacavit.data import DATASETS, Digits, stratified_holdout
from pacavit.errors import DataError


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def test_it_is_registered() -> None:
    assert DATASETS.get("digits") is Digits


def test_splits(digits: Digits) -> None:
    sizes = {"train": 1257, "val": 180, "test": 360}
    for split in ("train", "val", "test"):
        images = digits.load(split)
        assert images.images.shape == (sizes[split], 3, 32, 32)
        assert images.images.dtype == torch.uint8
        counts = torch.bincount(images.labels, minlength=10)
        assert counts.min() >= 0.95 * sizes[split] / 10


def test_splits_share_no_image_and_cover_all(digits: Digits) -> None:
    from sklearn.datasets import load_digits

    merged = torch.cat([digits.load(split).images for split in ("train", "val", "test")])
    unique = torch.unique(torch.from_numpy(load_digits().data), dim=0)
    assert len(torch.unique(merged.flatten(1), dim=0)) == len(unique) == len(merged)


def test_the_test_set_never_depends_on_the_validation_set(digits: Digits) -> None:
    other = Digits(val_size=0)
    assert torch.equal(other.load("test").images, digits.load("test").images)
    assert len(other.load("train")) == 1437
    with pytest.raises(DataError, match="val_size is 0"):
        other.load("val")


def test_recorded_mean_and_std(digits: Digits) -> None:
    pixels = torch.cat([digits.load(split).images for split in ("train", "val")]).double() / 255
    assert digits.info.mean == pytest.approx([pixels.mean().item()] * 3, abs=1e-4)
    assert digits.info.std == pytest.approx([pixels.std().item()] * 3, abs=1e-4)


def test_enlarging_keeps_the_mean(digits: Digits) -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    _, test = stratified_holdout(torch.from_numpy(bunch.target), 360)
    stored = torch.from_numpy(bunch.images)[test].mean((1, 2)) / 16 * 255
    assert (digits.load("test").images.double().mean((1, 2, 3)) - stored).abs().max() < 0.5
    assert torch.equal(digits.load("test").labels, torch.from_numpy(bunch.target)[test])


def test_it_takes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="takes no data folder"):
        Digits(tmp_path)


@pytest.mark.parametrize("val_size", [-1, 1437])
def test_validation_sizes_that_do_not_fit(val_size: int) -> None:
    with pytest.raises(DataError, match="cannot hold out"):
        Digits(val_size=val_size).load("train")
