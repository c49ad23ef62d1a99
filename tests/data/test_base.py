"""What an image set is to a loader, shown by one that keeps nothing in memory."""

from __future__ import annotations

from collections.abc import Callable

import pydantic
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.data import DataInfo, ImageSet, LabeledImages, Loader, MemoryImages, SampleRandom

MakeLoader = Callable[..., Loader]


class Squares(LabeledImages):
    """Gray pictures of growing size, made when they are asked for."""

    def __init__(self, num: int) -> None:
        self.labels = torch.arange(num) % 2

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        pictures = [torch.full((1, 3, side, side), 10.0 * side) for side in (indices + 1).tolist()]
        images = torch.cat([F.interpolate(picture, size=(4, 4)) for picture in pictures])
        return images.to(torch.uint8), self.labels[indices]

    def to(self, device: torch.device) -> Squares:
        assert device == self.device
        return self


def as_float(images: Tensor, random: SampleRandom) -> Tensor:
    return images.float()


def test_a_loader_needs_no_images_in_memory(make_loader: MakeLoader) -> None:
    loader = make_loader(Squares(5), 2, as_float, shuffle=False, drop_last=False, seed=0)
    batches = list(loader.epoch(0))
    assert [tuple(batch.images.shape) for batch in batches] == [(2, 3, 4, 4)] * 2 + [(1, 3, 4, 4)]
    corners = torch.cat([batch.images for batch in batches])[:, 0, 0, 0]
    assert corners.tolist() == [10, 20, 30, 40, 50]
    assert torch.cat([batch.targets for batch in batches]).tolist() == [0, 1, 0, 1, 0]


def test_what_is_in_memory_already_is_not_copied() -> None:
    stored = MemoryImages(torch.zeros(3, 3, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0]))
    moved = stored.to(torch.device("cpu"))
    assert len(moved) == 3
    assert moved.device == torch.device("cpu")
    assert moved.images.data_ptr() == stored.images.data_ptr()


def test_both_tensors_move() -> None:
    stored = MemoryImages(torch.zeros(3, 3, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0]))
    moved = stored.to(torch.device("meta"))
    assert moved.device == moved.labels.device == torch.device("meta")


def test_an_image_set_must_implement_everything() -> None:
    class Nothing(LabeledImages):
        labels = torch.zeros(0, dtype=torch.int64)

    with pytest.raises(TypeError, match="batch"):
        Nothing()  # type: ignore[abstract]

    class Less(ImageSet):
        pass

    with pytest.raises(TypeError, match=r"__getitem__.*__len__.*device.*target.*to"):
        Less()  # type: ignore[abstract]


def test_a_labeled_set_has_samples() -> None:
    images = Squares(5)
    sample = images[3]
    assert torch.equal(sample.image, images.batch(torch.tensor([3]))[0][0])
    assert (int(sample.target), sample.index) == (1, 3)
    assert int(images.target(2)) == 0
    assert (len(images), images.location(4)) == (5, "image 4")


def test_weights_of_earlier_releases_call_the_version_copy() -> None:
    adapter = pydantic.TypeAdapter(DataInfo)
    half = (0.5, 0.5, 0.5)
    info = DataInfo("toy", "the second copy", ("a", "b"), (4, 6), half, half)
    stored = adapter.dump_python(info, mode="json")
    assert stored["version"] == "the second copy"
    assert adapter.validate_python(stored) == info
    stored["copy"] = stored.pop("version")
    assert adapter.validate_python(stored) == info
