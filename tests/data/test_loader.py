from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pacavit.data import Batch, Loader, MemoryImages, SampleRandom, epoch_order
from pacavit.errors import DataError

MakeLoader = Callable[..., Loader]
MakeBatches = Callable[..., list[Batch]]


def noisy(images: Tensor, random: SampleRandom) -> Tensor:
    return images.float() + random.uniform("noise")[:, :, None, None]


@pytest.fixture
def images() -> MemoryImages:
    pixels = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    return MemoryImages(pixels.contiguous(), torch.arange(10) % 3)


@pytest.fixture
def batches(images: MemoryImages, make_loader: MakeLoader) -> MakeBatches:
    def make(batch_size: int = 4, *, start: int = 0, epoch: int = 0) -> list[Batch]:
        loader = make_loader(images, batch_size, noisy, shuffle=True, drop_last=False, seed=7)
        return list(loader.epoch(epoch, start))

    return make


def test_an_epoch_visits_every_image_once(images: MemoryImages, batches: MakeBatches) -> None:
    epoch = batches()
    assert [len(batch.targets) for batch in epoch] == [4, 4, 2]
    indices = torch.cat([batch.indices for batch in epoch])
    assert torch.equal(indices, epoch_order(10, seed=7, epoch=0))
    for batch in epoch:
        assert torch.equal(batch.targets, images.labels[batch.indices])
        assert torch.equal(batch.images[:, 0, 0, 0].floor().long(), batch.indices)


def test_a_preprocess_sees_targets_and_the_same_draws_in_its_batch(
    images: MemoryImages, make_loader: MakeLoader, batches: MakeBatches
) -> None:
    def swap(batch: Batch, random: SampleRandom) -> Batch:
        assert torch.equal(random.indices, batch.indices)
        assert (random.seed, random.epoch) == (7, 2)
        return replace(batch, targets=batch.targets + 10)

    loader = make_loader(images, 4, noisy, shuffle=True, drop_last=False, seed=7, change=swap)
    for changed, plain in zip(loader.epoch(2), batches(epoch=2), strict=True):
        assert torch.equal(changed.images, plain.images)
        assert torch.equal(changed.targets, plain.targets + 10)


def test_draws_do_not_depend_on_the_batch_size(batches: MakeBatches) -> None:
    small, large = (torch.cat([batch.images for batch in batches(size)]) for size in (3, 10))
    assert torch.equal(small, large)


def test_a_resumed_epoch_resumes_where_it_stopped(batches: MakeBatches) -> None:
    whole, rest = batches(epoch=2), batches(epoch=2, start=1)
    assert len(rest) == 2
    for expected, batch in zip(whole[1:], rest, strict=True):
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.targets, expected.targets)
        assert torch.equal(batch.indices, expected.indices)


def test_skipped_batches_are_not_transformed(images: MemoryImages, make_loader: MakeLoader) -> None:
    seen: list[int] = []

    def record(pixels: Tensor, random: SampleRandom) -> Tensor:
        seen.append(len(pixels))
        return pixels.float()

    loader = make_loader(images, 4, record, shuffle=False, drop_last=False, seed=0)
    assert len(list(loader.epoch(0, start=2))) == 1
    assert seen == [2]


def test_epochs_differ_and_order_without_shuffle_does_not(
    images: MemoryImages, make_loader: MakeLoader, batches: MakeBatches
) -> None:
    assert not torch.equal(batches(10)[0].indices, batches(10, epoch=1)[0].indices)
    loader = make_loader(images, 4, noisy, shuffle=False, drop_last=True, seed=0)
    assert len(loader) == 2
    for epoch in (0, 1):
        indices = torch.cat([batch.indices for batch in loader.epoch(epoch)])
        assert torch.equal(indices, torch.arange(8))


@pytest.mark.parametrize(("batch_size", "drop_last", "expected"), [(5, False, 2), (4, False, 3)])
def test_length(
    images: MemoryImages, batch_size: int, drop_last: bool, expected: int, make_loader: MakeLoader
) -> None:
    loader = make_loader(images, batch_size, noisy, shuffle=True, drop_last=drop_last, seed=0)
    assert len(loader) == expected == len(list(loader.epoch(0)))


def test_no_batch_at_all_is_an_error(images: MemoryImages, make_loader: MakeLoader) -> None:
    with pytest.raises(DataError, match="10 images do not fill one batch of 11"):
        make_loader(images, 11, noisy, shuffle=True, drop_last=True, seed=0)
    nothing = MemoryImages(images.images[:0], images.labels[:0])
    with pytest.raises(DataError, match="no images"):
        make_loader(nothing, 1, noisy, shuffle=True, drop_last=False, seed=0)
    with pytest.raises(ValueError, match="batch_size"):
        make_loader(images, 0, noisy, shuffle=True, drop_last=False, seed=0)


@pytest.mark.parametrize(("batch_size", "num", "sizes"), [(4, 2, [4, 4, 2]), (4, 3, [4, 6])])
def test_shards_make_the_whole(
    batch_size: int, num: int, sizes: list[int], images: MemoryImages, make_loader: MakeLoader
) -> None:
    loaders = [
        make_loader(
            images, batch_size, noisy, shuffle=True, drop_last=False, seed=7, shard=(own, num)
        )
        for own in range(num)
    ]
    shards = [list(loader.epoch(3)) for loader in loaders]
    assert [len(loader) for loader in loaders] == [len(sizes)] * num
    whole = make_loader(images, 10, noisy, shuffle=True, drop_last=False, seed=7)
    (expected,) = whole.epoch(3)
    joined = [
        Batch(
            torch.cat([part.images for part in parts]),
            torch.cat([part.targets for part in parts]),
            torch.cat([part.indices for part in parts]),
        )
        for parts in zip(*shards, strict=True)
    ]
    for name in ("images", "targets", "indices"):
        found = torch.cat([getattr(batch, name) for batch in joined])
        assert torch.equal(found, getattr(expected, name)), name
    assert [len(batch.targets) for batch in joined] == sizes
    assert all(len(batch.targets) for shard in shards for batch in shard)


@pytest.mark.parametrize(
    ("batch_size", "num", "sizes"), [(10, 2, [6, 4]), (10, 3, [4, 4, 2]), (9, 2, [6, 3])]
)
def test_what_is_mixed_in_pairs_is_cut_between_pairs(
    batch_size: int, num: int, sizes: list[int], images: MemoryImages, make_loader: MakeLoader
) -> None:
    def loader(own: int, of: int) -> Loader:
        return make_loader(
            images,
            batch_size,
            noisy,
            shuffle=True,
            drop_last=True,
            seed=7,
            unit=2,
            shard=(own, of),
        )

    loaders = [loader(own, num) for own in range(num)]
    shards = [next(loader.epoch(0)).indices for loader in loaders]
    assert [len(shard) for shard in shards] == sizes
    assert loaders[0].shard_sizes == (max(sizes), min(sizes))
    assert torch.equal(torch.cat(shards), next(loader(0, 1).epoch(0)).indices)
    with pytest.raises(DataError, match="mixed in pairs is not enough for 6 processes"):
        loader(0, 6)


def test_too_small_to_cut_into_shards_is_an_error(
    images: MemoryImages, make_loader: MakeLoader
) -> None:
    for batch_size in (2, 20):
        with pytest.raises(DataError, match="not enough for 11 processes"):
            make_loader(
                images, batch_size, noisy, shuffle=False, drop_last=False, seed=0, shard=(0, 11)
            )
