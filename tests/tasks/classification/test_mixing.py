from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pacavit.data import Batch, SampleRandom
from pacavit.tasks.classification.config import MixConfig
from pacavit.tasks.classification.mixing import Mix

CLASSES = 10


def make_batch(num: int = 10, height: int = 12, width: int = 16) -> Batch:
    """Image i has the value i everywhere, so what it was mixed with can be read off it."""
    images = torch.arange(float(num))[:, None, None, None].expand(-1, 3, height, width)
    images = images.contiguous(memory_format=torch.channels_last)
    return Batch(images, torch.arange(num) % CLASSES, torch.randperm(num + 50)[:num])


def mix(batch: Batch, epoch: int = 0, epochs: int = 10, **config: Any) -> Batch:
    random = SampleRandom(seed=3, epoch=epoch, indices=batch.indices)
    return Mix(MixConfig(**config), CLASSES, epochs)(batch, random)


def own_part(batch: Batch, mixed: Batch) -> Tensor:
    """(B, H, W): how much of itself each pixel kept, by the values of ``make_batch``."""
    values = batch.images[:, 0]
    partner = values[torch.arange(len(values)) ^ 1]
    return (mixed.images[:, 0] - partner) / (values - partner)


def test_mixup_blends_neighbors_and_their_labels_alike() -> None:
    batch = make_batch()
    before = batch.images.clone()
    mixed = mix(batch, mixup=0.8)
    assert torch.equal(batch.images, before)
    assert torch.equal(mixed.indices, batch.indices)
    assert mixed.images.is_contiguous(memory_format=torch.channels_last)
    own = own_part(batch, mixed)
    share = own.mean((1, 2))
    assert (own - share[:, None, None]).abs().max() < 1e-5
    torch.testing.assert_close(share[0::2], share[1::2], atol=1e-5, rtol=0)
    assert 0 < share.min() < share.max() < 1
    rows = torch.arange(10)
    torch.testing.assert_close(mixed.targets[rows, rows], share, atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed.targets[rows, rows ^ 1], 1 - share, atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(10))


def test_cutmix_exchanges_one_rectangle_and_counts_its_pixels() -> None:
    batch = make_batch()
    mixed = mix(batch, cutmix=1.0)
    own = own_part(batch, mixed)
    assert ((own == 0) | (own == 1)).all()
    assert torch.equal(own[0::2], own[1::2])
    exchanged = own == 0
    assert exchanged.any((1, 2)).any()
    assert torch.equal(exchanged, exchanged.any(2)[:, :, None] & exchanged.any(1)[:, None])
    rows = torch.arange(10)
    torch.testing.assert_close(mixed.targets[rows, rows], own.mean((1, 2)))


def test_both_take_turns_and_some_pairs_stay() -> None:
    batch = make_batch(400)
    own = own_part(batch, mix(batch, mixup=1.0, cutmix=1.0, prob=0.8, switch_prob=0.25))[::2]
    kept = (own == 1).all((1, 2)).float().mean()
    blended = ((own > 0) & (own < 1)).all((1, 2)).float().mean()
    assert 0.1 < kept < 0.35  # the 0.2, and some rectangles without a pixel
    assert 0.5 < blended < 0.7


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0])
def test_weights_have_the_distribution_of_the_paper(alpha: float) -> None:
    batch = make_batch(4000, 1, 1)
    share = own_part(batch, mix(batch, mixup=alpha)).flatten()[::2]
    assert share.mean() == pytest.approx(0.5, abs=0.03)
    assert share.std() == pytest.approx(math.sqrt(0.25 / (2 * alpha + 1)), abs=0.02)


def test_a_batch_may_be_cut_between_pairs() -> None:
    batch = make_batch(10)
    config: dict[str, Any] = {"mixup": 0.8, "cutmix": 1.0}
    whole = mix(batch, **config)
    chunks = [mix(batch[rows], **config) for rows in (slice(4), slice(4, 10))]
    for name in ("images", "targets", "indices"):
        joined = torch.cat([getattr(chunk, name) for chunk in chunks])
        assert torch.equal(joined, getattr(whole, name)), name
    other = mix(batch, epoch=1, **config)
    assert not torch.equal(other.images, whole.images)


def test_a_last_image_without_a_neighbor_stays() -> None:
    batch = make_batch(7)
    mixed = mix(batch, mixup=1.0)
    assert torch.equal(mixed.images[6], batch.images[6])
    assert mixed.targets[6].tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    alone = mix(make_batch(1), mixup=1.0, cutmix=1.0)
    assert alone.targets.shape == (1, CLASSES)


def test_mixing_ends_with_its_part_of_the_epochs() -> None:
    batch = make_batch()
    assert mix(batch, epoch=7, mixup=1.0, until=0.8).targets.ndim == 2
    assert mix(batch, epoch=8, mixup=1.0, until=0.8) is batch
