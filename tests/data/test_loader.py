import pytest
import torch
from torch import Tensor

from pacavit.data import Batch, Loader, MemoryImages, SampleRandom, epoch_order
from pacavit.errors import DataError


def noisy(images: Tensor, random: SampleRandom) -> Tensor:
    return images.float() + random.uniform("noise")[:, :, None, None]


@pytest.fixture
def images() -> MemoryImages:
    pixels = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    return MemoryImages(pixels.contiguous(), torch.arange(10) % 3)


def batches(
    images: MemoryImages, batch_size: int = 4, *, start: int = 0, epoch: int = 0
) -> list[Batch]:
    loader = Loader(images, batch_size, noisy, shuffle=True, drop_last=False, seed=7)
    return list(loader.epoch(epoch, start))


def test_an_epoch_visits_every_image_once(images: MemoryImages) -> None:
    epoch = batches(images)
    assert [len(batch.labels) for batch in epoch] == [4, 4, 2]
    indices = torch.cat([batch.indices for batch in epoch])
    assert torch.equal(indices, epoch_order(10, seed=7, epoch=0))
    for batch in epoch:
        assert torch.equal(batch.labels, images.labels[batch.indices])
        assert torch.equal(batch.images[:, 0, 0, 0].floor().long(), batch.indices)


def test_a_batch_transform_sees_labels_and_the_same_draws(images: MemoryImages) -> None:
    def swap(batch: Batch, random: SampleRandom) -> Batch:
        assert torch.equal(random.indices, batch.indices)
        assert (random.seed, random.epoch) == (7, 2)
        return batch._replace(labels=batch.labels + 10)

    loader = Loader(images, 4, noisy, shuffle=True, drop_last=False, seed=7, batch_transform=swap)
    for changed, plain in zip(loader.epoch(2), batches(images, epoch=2), strict=True):
        assert torch.equal(changed.images, plain.images)
        assert torch.equal(changed.labels, plain.labels + 10)


def test_draws_do_not_depend_on_the_batch_size(images: MemoryImages) -> None:
    small, large = (
        torch.cat([batch.images for batch in batches(images, size)]) for size in (3, 10)
    )
    assert torch.equal(small, large)


def test_a_resumed_epoch_goes_on_where_it_stopped(images: MemoryImages) -> None:
    whole, rest = batches(images, epoch=2), batches(images, epoch=2, start=1)
    assert len(rest) == 2
    for expected, batch in zip(whole[1:], rest, strict=True):
        assert all(torch.equal(*pair) for pair in zip(expected, batch, strict=True))


def test_skipped_batches_are_not_transformed(images: MemoryImages) -> None:
    seen: list[int] = []

    def record(pixels: Tensor, random: SampleRandom) -> Tensor:
        seen.append(len(pixels))
        return pixels.float()

    loader = Loader(images, 4, record, shuffle=False, drop_last=False, seed=0)
    assert len(list(loader.epoch(0, start=2))) == 1
    assert seen == [2]


def test_epochs_differ_and_order_without_shuffle_does_not(images: MemoryImages) -> None:
    assert not torch.equal(batches(images, 10)[0].indices, batches(images, 10, epoch=1)[0].indices)
    loader = Loader(images, 4, noisy, shuffle=False, drop_last=True, seed=0)
    assert len(loader) == 2
    for epoch in (0, 1):
        indices = torch.cat([batch.indices for batch in loader.epoch(epoch)])
        assert torch.equal(indices, torch.arange(8))


@pytest.mark.parametrize(("batch_size", "drop_last", "expected"), [(5, False, 2), (4, False, 3)])
def test_length(images: MemoryImages, batch_size: int, drop_last: bool, expected: int) -> None:
    loader = Loader(images, batch_size, noisy, shuffle=True, drop_last=drop_last, seed=0)
    assert len(loader) == expected == len(list(loader.epoch(0)))


def test_no_batch_at_all_is_an_error(images: MemoryImages) -> None:
    with pytest.raises(DataError, match="10 images do not fill one batch of 11"):
        Loader(images, 11, noisy, shuffle=True, drop_last=True, seed=0)
    nothing = MemoryImages(images.images[:0], images.labels[:0])
    with pytest.raises(DataError, match="no images"):
        Loader(nothing, 1, noisy, shuffle=True, drop_last=False, seed=0)
    with pytest.raises(ValueError, match="batch_size"):
        Loader(images, 0, noisy, shuffle=True, drop_last=False, seed=0)


@pytest.mark.parametrize(("batch_size", "parts", "sizes"), [(4, 2, [4, 4, 2]), (4, 3, [4, 6])])
def test_parts_make_the_whole(
    batch_size: int, parts: int, sizes: list[int], images: MemoryImages
) -> None:
    loaders = [
        Loader(images, batch_size, noisy, shuffle=True, drop_last=False, seed=7, part=(own, parts))
        for own in range(parts)
    ]
    shares = [list(loader.epoch(3)) for loader in loaders]
    assert [len(loader) for loader in loaders] == [len(sizes)] * parts
    whole = Loader(images, 10, noisy, shuffle=True, drop_last=False, seed=7)
    (expected,) = whole.epoch(3)
    joined = [
        Batch(*(torch.cat(values) for values in zip(*batch, strict=True)))
        for batch in zip(*shares, strict=True)
    ]
    for kind, value in enumerate(expected):
        assert torch.equal(torch.cat([batch[kind] for batch in joined]), value)
    assert [len(batch.labels) for batch in joined] == sizes
    assert all(len(batch.labels) for share in shares for batch in share)


@pytest.mark.parametrize(
    ("batch_size", "parts", "sizes"), [(10, 2, [6, 4]), (10, 3, [4, 4, 2]), (9, 2, [6, 3])]
)
def test_what_is_mixed_in_pairs_is_cut_between_pairs(
    batch_size: int, parts: int, sizes: list[int], images: MemoryImages
) -> None:
    def loader(own: int, of: int) -> Loader:
        return Loader(
            images,
            batch_size,
            noisy,
            shuffle=True,
            drop_last=True,
            seed=7,
            batch_transform=lambda batch, random: batch,
            part=(own, of),
        )

    loaders = [loader(own, parts) for own in range(parts)]
    shares = [next(loader.epoch(0)).indices for loader in loaders]
    assert [len(share) for share in shares] == sizes
    assert loaders[0].share_sizes == (max(sizes), min(sizes))
    assert torch.equal(torch.cat(shares), next(loader(0, 1).epoch(0)).indices)
    with pytest.raises(DataError, match="mixed in pairs is not enough for 6 processes"):
        loader(0, 6)


def test_too_small_to_share_is_an_error(images: MemoryImages) -> None:
    for batch_size in (2, 20):
        with pytest.raises(DataError, match="not enough for 11 processes"):
            Loader(images, batch_size, noisy, shuffle=False, drop_last=False, seed=0, part=(0, 11))
