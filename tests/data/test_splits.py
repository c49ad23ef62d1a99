import numpy as np
import pytest
import torch

from pacavit.data import MemoryImages, hold_out_validation, stratified_holdout
from pacavit.data.splits import named_holdout
from pacavit.errors import DataError


def test_both_parts_keep_the_class_balance() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)[torch.randperm(100)]
    kept, held = stratified_holdout(labels, 10)
    assert torch.bincount(labels[held]).tolist() == [5, 3, 2]
    assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(100))
    assert torch.equal(kept, kept.sort().values)


@pytest.mark.parametrize("size", [0, 1, 7, 99])
def test_exactly_as_many_as_asked_for(size: int) -> None:
    labels = torch.arange(100) % 7
    kept, held = stratified_holdout(labels, size)
    assert (len(kept), len(held)) == (100 - size, size)


def test_always_the_same_split() -> None:
    """Published numbers depend on it: this answer must never change."""
    _, held = stratified_holdout(torch.arange(20) % 2, 4)
    assert held.tolist() == [3, 6, 16, 17]


def test_another_seed_another_split() -> None:
    labels = torch.arange(100) % 4
    assert not torch.equal(stratified_holdout(labels, 20)[1], stratified_holdout(labels, 20, 1)[1])


def test_names_are_held_out_each_for_itself() -> None:
    names = np.array([f"{number}.png".encode() for number in range(1000)])
    labels = torch.arange(1000) % 4
    kept, held = named_holdout(names, labels, 0.15, "test")
    assert 110 < len(held) < 190
    assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(1000))
    _, of_fewer = named_holdout(names[500:], labels[500:], 0.15, "test")
    assert torch.equal(of_fewer + 500, held[held >= 500])
    assert not torch.equal(named_holdout(names, labels, 0.15, "val")[1], held)
    _, exactly = named_holdout(names, labels, 40, "test")
    assert labels[exactly].bincount().tolist() == [10] * 4
    assert set(exactly.tolist()) <= set(held.tolist())
    _, few = named_holdout(names[:7], torch.tensor([0, 0, 0, 1, 1, 1, 2]), 1e-9, "test")
    assert labels.new_tensor([0, 0, 0, 1, 1, 1, 2])[few].tolist() == [0, 1]


@pytest.mark.parametrize("size", [-1, 10, 11])
def test_sizes_that_do_not_fit(size: int) -> None:
    with pytest.raises(DataError, match=rf"cannot hold out {size} of 10 images; choose 0 to 9"):
        stratified_holdout(torch.arange(10) % 2, size)


def test_validation_of_no_images() -> None:
    full = MemoryImages(torch.zeros(6, 3, 2, 2, dtype=torch.uint8), torch.arange(6) % 2)
    train, val = hold_out_validation(full, 0)
    assert (len(train), len(val)) == (6, 0)
