"""What every preprocess does with samples: collate them, whatever their targets are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pacavit.data import (
    Batch,
    ImageSet,
    Loader,
    MemoryImages,
    Placement,
    Preprocess,
    Region,
    Sample,
    SampleRandom,
)

MakeLoader = Callable[..., Loader]
PLACEMENT = Placement((2, 2), Region(0, 0, 2, 2), (2, 2))


class Plain(Preprocess):
    per_sample = True

    def sample(self, sample: Sample, random: SampleRandom) -> tuple[Sample, Placement]:
        return sample, PLACEMENT

    def batch(self, batch: Batch, random: SampleRandom) -> Batch:
        return batch


def collate(*targets: Any) -> Batch:
    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    samples = [Sample(image + i, target, 10 + i) for i, target in enumerate(targets)]
    return Plain().collate([(sample, PLACEMENT) for sample in samples])


def test_images_and_positions_are_stacked() -> None:
    batch = collate(0, 1, 2)
    assert batch.images.shape == (3, 3, 2, 2)
    assert batch.images.dtype == torch.uint8
    assert batch.images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert batch.indices.tolist() == [10, 11, 12]
    assert batch.placements == [PLACEMENT] * 3
    assert batch.pixel_mask is None


def test_numbers_become_a_tensor() -> None:
    targets = collate(2, 0, 1).targets
    assert targets.dtype == torch.int64
    assert targets.tolist() == [2, 0, 1]


def test_tensors_of_one_shape_are_stacked() -> None:
    labels = collate(torch.tensor(2), torch.tensor(0)).targets
    assert (labels.dtype, labels.tolist()) == (torch.int64, [2, 0])
    masks = [torch.randint(0, 5, (2, 2), dtype=torch.uint8) for _ in range(3)]
    assert torch.equal(collate(*masks).targets, torch.stack(masks))


def test_other_targets_become_a_list() -> None:
    ragged = [torch.rand(1, 4), torch.rand(3, 4)]
    found = collate(*ragged).targets
    assert isinstance(found, list)
    assert all(one is other for one, other in zip(found, ragged, strict=True))
    mappings = [{"boxes": torch.rand(i, 4)} for i in range(2)]
    assert collate(*mappings).targets == mappings
    assert collate("a", "b").targets == ["a", "b"]


def test_samples_without_targets_have_none() -> None:
    assert collate(None, None).targets is None


class Boxes(ImageSet):
    """Image i is gray i and shows i objects; targets are mappings, as of a detector."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Sample:
        image = torch.full((3, 2, 2), index, dtype=torch.uint8)
        return Sample(image, self.target(index), index)

    def target(self, index: int) -> dict[str, Tensor]:
        return {"boxes": torch.full((index, 4), float(index))}

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def to(self, device: torch.device) -> Boxes:
        return self


def test_a_loader_takes_sets_with_targets_of_any_kind() -> None:
    loader = Loader(Boxes(), 2, Plain(), shuffle=False, drop_last=False, seed=0)
    batches = list(loader.epoch(0))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    found = [target["boxes"] for batch in batches for target in batch.targets]
    assert [boxes.shape for boxes in found] == [(number, 4) for number in range(5)]
    assert torch.cat([batch.images for batch in batches])[:, 0, 0, 0].tolist() == [*range(5)]
    assert all(len(batch.placements) == len(batch) for batch in batches)


def test_tensors_in_memory_skip_what_is_done_to_one_image(make_loader: MakeLoader) -> None:
    """Sets of images with one size go to ``batch`` at once, unless the preprocess crops."""
    pixels = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
    images = MemoryImages(pixels.contiguous(), torch.tensor([0, 1, 0, 1]))
    sizes: list[tuple[int, ...]] = []

    def transform(batch: Tensor, random: SampleRandom) -> Tensor:
        sizes.append(tuple(batch.shape))
        return batch.float()

    def crop(image: Tensor, random: SampleRandom) -> Tensor:
        return image[:, :2, :3]

    options: dict[str, Any] = {"shuffle": False, "drop_last": False, "seed": 0}
    whole = next(make_loader(images, 4, transform, **options).epoch(0))
    cropped = next(make_loader(images, 4, transform, crop=crop, **options).epoch(0))
    assert sizes == [(4, 3, 4, 4), (4, 3, 2, 3)]
    assert torch.equal(whole.targets, images.labels)
    assert torch.equal(cropped.targets, images.labels)
    assert torch.equal(cropped.images, whole.images[:, :, :2, :3])
