"""Batches of any kind of target: cut, moved, and made of samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pacavit.data import Batch, Placement, Region

NUM = 8


def make_batch(targets: Any, num: int = NUM) -> Batch:
    images = torch.arange(num * 12.0).view(num, 3, 2, 2)
    placements = [Placement((i + 1, 2), Region(0, 0, i + 1, 2), (2, 2)) for i in range(num)]
    mask = torch.arange(num * 4).view(num, 2, 2) % 3 > 0
    return Batch(images, targets, torch.arange(num) + 100, mask, placements)


def boxes(num: int) -> list[dict[str, Tensor]]:
    """One mapping an image; image i has i boxes."""
    return [{"boxes": torch.rand(i, 4), "labels": torch.full((i,), i)} for i in range(num)]


@pytest.mark.parametrize("num_chunks", [1, 2, 3, 5, 8])
def test_chunks_have_the_sizes_of_tensor_split(num_chunks: int) -> None:
    batch = make_batch(torch.arange(NUM))
    chunks = batch.chunk(num_chunks)
    assert len(chunks) == num_chunks
    for name in ("images", "targets", "indices", "pixel_mask"):
        expected = getattr(batch, name).tensor_split(num_chunks)
        for chunk, values in zip(chunks, expected, strict=True):
            assert torch.equal(getattr(chunk, name), values), name
    assert [len(chunk) for chunk in chunks] == [len(chunk.placements) for chunk in chunks]
    assert [placement for chunk in chunks for placement in chunk.placements] == batch.placements


def test_a_slice_cuts_everything_alike() -> None:
    targets = boxes(NUM)
    batch = make_batch(targets)[2:5]
    assert len(batch) == 3
    assert batch.indices.tolist() == [102, 103, 104]
    assert batch.targets == targets[2:5]
    assert [placement.image_size[0] for placement in batch.placements] == [3, 4, 5]
    assert batch.pixel_mask is not None
    assert batch.pixel_mask.shape == (3, 2, 2)
    assert [len(chunk.targets) for chunk in make_batch(targets).chunk(3)] == [3, 3, 2]


def test_what_is_not_there_is_not_cut() -> None:
    batch = Batch.unlabeled(torch.zeros(4, 3, 2, 2))
    assert batch.indices.tolist() == [0, 1, 2, 3]
    part = batch[1:3]
    assert (part.targets, part.pixel_mask, len(part.placements)) == (None, None, 0)
    assert part.indices.tolist() == [1, 2]


def test_all_tensors_of_the_targets_move() -> None:
    device = torch.device("meta")
    moved = make_batch([*boxes(3), {"nested": (torch.zeros(2), "a name")}], 4).to(device)
    assert moved.images.device == moved.indices.device == device
    assert moved.pixel_mask is not None
    assert moved.pixel_mask.device == device
    assert all(values.device == device for row in moved.targets[:3] for values in row.values())
    nested, name = moved.targets[3]["nested"]
    assert (nested.device, name) == (device, "a name")
    assert len(moved.placements) == 4
    assert make_batch(torch.arange(NUM)).to(device).targets.device == device
    assert make_batch(None).to(device).targets is None


def test_what_is_there_already_is_not_copied() -> None:
    batch = make_batch(boxes(NUM))
    moved = batch.to(torch.device("cpu"))
    assert moved.images.data_ptr() == batch.images.data_ptr()
    assert moved.targets[3]["boxes"].data_ptr() == batch.targets[3]["boxes"].data_ptr()


@pytest.mark.gpu
def test_all_tensors_are_pinned() -> None:
    pinned = make_batch(boxes(NUM)).pin_memory()
    tensors = [pinned.images, pinned.indices, *pinned.targets[3].values()]
    assert all(tensor.is_pinned() for tensor in tensors)
