"""Batches of images with objects: wide or tall, and without those that hold nothing to learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import pytest
import torch

from pacavit.data import (
    Batch,
    DataInfo,
    Loader,
    MemoryObjects,
    ObjectImages,
    Objects,
    ObjectStatistics,
    Sample,
)
from pacavit.errors import DataError
from pacavit.tasks.detection import DetectionPreprocess, InstanceSegmentationConfig

TinyObjects: TypeAlias = Callable[..., MemoryObjects]
WIDE, TALL = (20, 30), (30, 20)


class MixedImages(ObjectImages):
    """Wide and tall images in files that need not exist; some have no object."""

    in_files: ClassVar[bool] = True

    def __init__(self, make: TinyObjects, num: int, broken: tuple[int, ...] = ()) -> None:
        self.sets = [make(1, seed, TALL if seed % 3 == 0 else WIDE) for seed in range(num)]
        self.unreadable, self.broken, self.root = broken, {}, Path("folder")

    def __len__(self) -> int:
        return len(self.sets)

    def __getitem__(self, index: int) -> Sample:
        if index in self.unreadable:
            raise DataError(f"{self.location(index)} is broken")
        return Sample(self.sets[index].images[0], self.target(index), index)

    def target(self, index: int) -> Objects:
        found = self.sets[index].objects[0]
        return found[torch.zeros(0, dtype=torch.int64)] if index % 5 == 4 else found

    def file(self, index: int) -> Path:
        return Path(f"{index}.png")

    @property
    def statistics(self) -> ObjectStatistics:
        return ObjectStatistics.of((self.target(index) for index in range(len(self))), 2)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def to(self, device: torch.device) -> MixedImages:
        return self

    def add_broken(self, broken: Any) -> None:
        self.broken = {**self.broken, **broken}


@pytest.fixture(name="mixed")
def _mixed(tiny_objects: TinyObjects) -> MixedImages:
    """30 images: 10 tall ones, 6 without objects."""
    return MixedImages(tiny_objects, 30)


def loader(images: ObjectImages, info: DataInfo, *, training: bool = True, **config: Any) -> Loader:
    options = {key: config.pop(key) for key in ("shard", "num_workers") if key in config}
    made = InstanceSegmentationConfig(**config)
    return Loader(
        images,
        4,
        DetectionPreprocess(made, info, training=training, masks=True),
        shuffle=training,
        drop_last=training,
        seed=5,
        **options,
    )


def orientations(batches: list[Batch]) -> list[set[bool]]:
    return [{placement.image_size == TALL for placement in batch.placements} for batch in batches]


def indices(batches: list[Batch]) -> list[list[int]]:
    return [batch.indices.tolist() for batch in batches]


def test_batches_hold_wide_or_tall_images(mixed: MixedImages, info: DataInfo) -> None:
    made = loader(mixed, info)
    batches = list(made.epoch(0))
    seen = [index for batch in indices(batches) for index in batch]
    assert len(batches) == len(made) == 6  # 24 images with objects
    assert sorted(seen) == [index for index in range(30) if index % 5 != 4]
    # 8 tall and 16 wide ones: all batches can be of one kind.
    assert all(len(kinds) == 1 for kinds in orientations(batches))
    assert {True} in orientations(batches)[1:5] or {True} in orientations(batches)[:1]
    assert indices(batches) != indices(list(made.epoch(1)))
    assert indices(batches) == indices(list(loader(mixed, info).epoch(0)))


def test_what_fills_no_batch_of_its_kind_shares_one(
    tiny_objects: TinyObjects, info: DataInfo
) -> None:
    images = MixedImages(tiny_objects, 19)  # 10 wide and 6 tall ones with objects
    batches = list(loader(images, info).epoch(0))
    assert len(batches) == 4
    assert [len(batch) for batch in batches] == [4] * 4
    assert sum(len(kinds) == 2 for kinds in orientations(batches)) == 1


def test_without_grouping_and_with_empty_images(mixed: MixedImages, info: DataInfo) -> None:
    made = loader(mixed, info, group_by_aspect=False, empty_images=True)
    batches = list(made.epoch(0))
    assert len(batches) == 7
    assert any(len(kinds) == 2 for kinds in orientations(batches))
    assert any(index % 5 == 4 for batch in indices(batches) for index in batch)


def test_crops_need_no_groups(mixed: MixedImages, info: DataInfo) -> None:
    batches = list(loader(mixed, info, crop_size=(16, 16)).epoch(0))
    assert any(len(kinds) == 2 for kinds in orientations(batches))
    assert all(index % 5 != 4 for batch in indices(batches) for index in batch)


def test_evaluation_sees_all_images_in_stored_order(mixed: MixedImages, info: DataInfo) -> None:
    batches = list(loader(mixed, info, training=False).epoch(0))
    assert [index for batch in indices(batches) for index in batch] == list(range(30))


def test_a_resumed_epoch_goes_on(mixed: MixedImages, info: DataInfo) -> None:
    made = loader(mixed, info)
    assert indices(list(made.epoch(2, start=3))) == indices(list(made.epoch(2)))[3:]


def test_shards_make_up_a_batch(mixed: MixedImages, info: DataInfo) -> None:
    whole = indices(list(loader(mixed, info).epoch(0)))
    shards = [indices(list(loader(mixed, info, shard=(own, 2)).epoch(0))) for own in (0, 1)]
    assert [first + second for first, second in zip(*shards, strict=True)] == whole


def test_broken_images_are_replaced_by_images_with_objects(
    tiny_objects: TinyObjects, info: DataInfo
) -> None:
    images = MixedImages(tiny_objects, 30, broken=(3, 8))  # before images without objects
    batches = list(loader(images, info).epoch(0))
    seen = [index for batch in indices(batches) for index in batch]
    assert len(seen) == 24
    assert all(index % 5 != 4 for index in seen)
    assert seen.count(5) == seen.count(10) == 2
    assert set(images.broken) == {"folder/3.png", "folder/8.png"}


def test_workers_make_the_same_batches(mixed: MixedImages, info: DataInfo) -> None:
    alone = list(loader(mixed, info).epoch(0))
    for own, other in zip(alone, loader(mixed, info, num_workers=1).epoch(0), strict=True):
        assert torch.equal(own.images, other.images)
        for target, second in zip(own.targets, other.targets, strict=True):
            assert all(torch.equal(target[name], second[name]) for name in target)


def test_a_split_without_any_object_is_refused(tiny_objects: TinyObjects, info: DataInfo) -> None:
    images = tiny_objects(6)
    none = replace(images, objects=[Objects.none((32, 48), masks=True)] * 6)
    with pytest.raises(DataError, match="none of the 6 images has an object"):
        loader(none, info)
