"""Batches of images in files: the same for any number of workers, and never stopped by a file."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pacavit.data import Batch, FileImages, Loader, SampleRandom, seeded_generators
from pacavit.data.formats.files import list_images
from pacavit.errors import DataError

MakeFolder = Callable[..., Path]
MakeLoader = Callable[..., Loader]
MakeBatches = Callable[..., list[Batch]]


def window(image: Tensor, random: SampleRandom) -> Tensor:
    """A random window of 8 x 8 pixels, drawn from a generator as libraries do."""
    with seeded_generators() as seed:
        seed(random.seeds("window")[0])
        top = int(torch.randint(0, image.shape[1] - 7, ()))
        left = int(torch.randint(0, image.shape[2] - 7, ()))
    return image[:, top : top + 8, left : left + 8]


def noisy(images: Tensor, random: SampleRandom) -> Tensor:
    return images.float() + random.uniform("noise")[:, :, None, None]


@pytest.fixture
def images(make_folder: MakeFolder) -> FileImages:
    root = make_folder()
    return FileImages(root, list_images(root, root, ("ant", "bee")), (8, 8))


@pytest.fixture
def batches(make_loader: MakeLoader) -> MakeBatches:
    def make(
        images: FileImages, num_workers: int = 0, *, start: int = 0, training: bool = True
    ) -> list[Batch]:
        loader = make_loader(
            images,
            5,
            noisy,
            shuffle=training,
            drop_last=training,
            seed=3,
            crop=window,
            num_workers=num_workers,
        )
        return list(loader.epoch(1, start))

    return make


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(getattr(one, name), getattr(other, name))
        for one, other in zip(first, second, strict=True)
        for name in ("images", "targets", "indices")
    )


@pytest.mark.parametrize("broken", [False, True])
def test_batches_are_the_same_for_any_number_of_workers(
    images: FileImages, broken: bool, batches: MakeBatches
) -> None:
    if broken:
        images.path(4).write_bytes(b"no image")
    generator = torch.get_rng_state()
    here = batches(images)
    assert [len(batch.targets) for batch in here] == [5, 5]
    for num_workers in (1, 2):
        listing = list_images(images.root, images.root, ("ant", "bee"))
        fresh = FileImages(images.root, listing, (8, 8))
        assert same(batches(fresh, num_workers), here)
        assert same(batches(fresh, num_workers, start=1), here[1:])
        assert len(fresh.broken) == broken
    assert torch.equal(torch.get_rng_state(), generator)


def test_an_image_is_the_same_in_any_batch(
    images: FileImages, make_loader: MakeLoader, batches: MakeBatches
) -> None:
    loader = make_loader(images, 1, noisy, shuffle=False, drop_last=False, seed=3, crop=window)
    many = batches(images, training=False)[0]
    assert torch.equal(next(loader.epoch(1)).images[0], many.images[0])


def test_images_in_memory_are_cropped_too(images: FileImages, make_loader: MakeLoader) -> None:
    images.size = (16, 16)
    loader = make_loader(
        images.into_memory(), 5, noisy, shuffle=True, drop_last=True, seed=3, crop=window
    )
    assert [tuple(batch.images.shape) for batch in loader.epoch(0)] == [(5, 3, 8, 8)] * 2


def test_without_a_crop_files_are_fitted(images: FileImages, make_loader: MakeLoader) -> None:
    loader = make_loader(images, 12, noisy, shuffle=False, drop_last=False, seed=0)
    batch = next(loader.epoch(0))
    assert torch.equal(batch.images.floor(), images.batch(torch.arange(12))[0].float())


def test_in_training_the_next_image_takes_the_place_of_a_broken_one(
    images: FileImages, batches: MakeBatches
) -> None:
    whole = torch.cat([batch.indices for batch in batches(images)]).tolist()
    images.path(4).write_bytes(b"no image")
    images.path(5).write_bytes(b"")
    fixed = batches(images)
    expected = [6 if index in (4, 5) else index for index in whole]
    assert torch.cat([batch.indices for batch in fixed]).tolist() == expected
    for batch in fixed:
        assert torch.equal(batch.targets, images.labels[batch.indices])
    assert set(images.broken) == {str(images.path(4)), str(images.path(5))}


def test_in_measuring_broken_images_are_left_out(images: FileImages, batches: MakeBatches) -> None:
    for index in (1, 5, 6, 7, 8, 9):
        images.path(index).write_bytes(b"no image")
    measured = batches(images, training=False)
    assert [batch.indices.tolist() for batch in measured] == [[0, 2, 3, 4], [10, 11]]
    assert len(images.broken) == 6


def test_a_shard_without_readable_images_has_as_many_batches(
    images: FileImages, make_loader: MakeLoader
) -> None:
    for index in (3, 4, 8, 9, 11):
        images.path(index).write_bytes(b"no image")
    shards = [
        make_loader(images, 5, noisy, shuffle=False, drop_last=False, seed=3, shard=(own, 2))
        for own in range(2)
    ]
    (whole, rest), (empty, also_empty) = ([*shard.epoch(0)][:2] for shard in shards)
    assert whole.indices.tolist() == [0, 1, 2]
    assert rest.indices.tolist() == [5, 6, 7]
    for batch in (empty, also_empty):
        assert batch.indices.tolist() == batch.targets.tolist() == []
        assert batch.images.shape == (0, *whole.images.shape[1:])
        assert batch.images.dtype == whole.images.dtype


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_no_usable_image_is_an_error(
    images: FileImages, training: bool, num_workers: int, batches: MakeBatches
) -> None:
    for index in range(12):
        images.path(index).write_bytes(b"")
    with pytest.raises(
        DataError, match=r"no usable image: 12 images are left out: .*images.(ant|bee)"
    ):
        batches(images, num_workers, training=training)
