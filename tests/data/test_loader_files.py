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


def framing(image: Tensor, random: SampleRandom) -> Tensor:
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


def batches(
    images: FileImages, num_workers: int = 0, *, start: int = 0, training: bool = True
) -> list[Batch]:
    loader = Loader(
        images,
        5,
        noisy,
        shuffle=training,
        drop_last=training,
        seed=3,
        framing=framing,
        num_workers=num_workers,
    )
    return list(loader.epoch(1, start))


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(*pair)
        for one, other in zip(first, second, strict=True)
        for pair in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("broken", [False, True])
def test_batches_are_the_same_for_any_number_of_workers(images: FileImages, broken: bool) -> None:
    if broken:
        images.path(4).write_bytes(b"no image")
    generator = torch.get_rng_state()
    here = batches(images)
    assert [len(batch.labels) for batch in here] == [5, 5]
    for num_workers in (1, 2):
        listing = list_images(images.root, images.root, ("ant", "bee"))
        fresh = FileImages(images.root, listing, (8, 8))
        assert same(batches(fresh, num_workers), here)
        assert same(batches(fresh, num_workers, start=1), here[1:])
        assert len(fresh.broken) == broken
    assert torch.equal(torch.get_rng_state(), generator)


def test_an_image_is_the_same_in_any_batch(images: FileImages) -> None:
    loader = Loader(images, 1, noisy, shuffle=False, drop_last=False, seed=3, framing=framing)
    many = batches(images, training=False)[0]
    assert torch.equal(next(loader.epoch(1)).images[0], many.images[0])


def test_images_in_memory_are_framed_too(images: FileImages) -> None:
    images.size = (16, 16)
    loader = Loader(
        images.into_memory(), 5, noisy, shuffle=True, drop_last=True, seed=3, framing=framing
    )
    assert [tuple(batch.images.shape) for batch in loader.epoch(0)] == [(5, 3, 8, 8)] * 2


def test_without_framing_files_are_fitted(images: FileImages) -> None:
    loader = Loader(images, 12, noisy, shuffle=False, drop_last=False, seed=0)
    batch = next(loader.epoch(0))
    assert torch.equal(batch.images.floor(), images.batch(torch.arange(12))[0].float())


def test_in_training_the_next_image_takes_the_place_of_a_broken_one(images: FileImages) -> None:
    whole = torch.cat([batch.indices for batch in batches(images)]).tolist()
    images.path(4).write_bytes(b"no image")
    images.path(5).write_bytes(b"")
    mended = batches(images)
    expected = [6 if index in (4, 5) else index for index in whole]
    assert torch.cat([batch.indices for batch in mended]).tolist() == expected
    for batch in mended:
        assert torch.equal(batch.labels, images.labels[batch.indices])
    assert set(images.broken) == {str(images.path(4)), str(images.path(5))}


def test_in_measuring_broken_images_are_left_out(images: FileImages) -> None:
    for index in (1, 5, 6, 7, 8, 9):
        images.path(index).write_bytes(b"no image")
    measured = batches(images, training=False)
    assert [batch.indices.tolist() for batch in measured] == [[0, 2, 3, 4], [10, 11]]
    assert len(images.broken) == 6


def test_a_part_without_readable_images_has_as_many_batches(images: FileImages) -> None:
    for index in (3, 4, 8, 9, 11):
        images.path(index).write_bytes(b"no image")
    parts = [
        Loader(images, 5, noisy, shuffle=False, drop_last=False, seed=3, part=(own, 2))
        for own in range(2)
    ]
    (whole, rest), (empty, also_empty) = ([*part.epoch(0)][:2] for part in parts)
    assert whole.indices.tolist() == [0, 1, 2]
    assert rest.indices.tolist() == [5, 6, 7]
    for batch in (empty, also_empty):
        assert batch.indices.tolist() == batch.labels.tolist() == []
        assert batch.images.shape == (0, *whole.images.shape[1:])
        assert batch.images.dtype == whole.images.dtype


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_no_usable_image_is_an_error(images: FileImages, training: bool, num_workers: int) -> None:
    for index in range(12):
        images.path(index).write_bytes(b"")
    with pytest.raises(DataError, match=r"no usable image in .*12 images are left out"):
        batches(images, num_workers, training=training)
