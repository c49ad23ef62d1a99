"""Every data source with masks keeps the contract that the segmentation task stands on."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pacavit.data import DATASETS, IGNORE_INDEX, SPLITS, DataSource, Loader, MaskedImages, Split
from pacavit.errors import DataError
from pacavit.tasks import TASKS
from pacavit.tasks.segmentation import SegmentationConfig

WritePairs = Callable[..., None]
MASK_SOURCES = [name for name in DATASETS.names() if "mask" in DATASETS.get(name).targets]


def build(name: str, root: Path, write_pairs: WritePairs) -> DataSource:
    """A small instance of a source."""
    if name == "shapes":
        options: dict[str, Any] = {
            "train_size": 6,
            "test_size": 3,
            "image_size": 32,
            "target": "mask",
        }
        return DATASETS.create(name, None, options=options, val_size=4)
    folders: dict[str, dict[str, str]] = {
        "ade20k": {"train": "training", "val": "validation", "test": "test"},
        "masks": {str(split): split for split in SPLITS},
    }
    kind = {"ade20k": "annotations", "masks": "masks"}
    for folder in folders[name].values():
        write_pairs(root / "images" / folder, root / kind[name] / folder)
    return DATASETS.create(name, root, options={})


@pytest.fixture(params=MASK_SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path, write_pairs: WritePairs) -> DataSource:
    return build(request.param, tmp_path, write_pairs)


def test_all_sources_are_covered() -> None:
    assert {"ade20k", "masks", "shapes"} <= set(MASK_SOURCES)


def test_facts(source: DataSource) -> None:
    info = source.info
    num = len(info.class_names)
    assert info.name in MASK_SOURCES
    assert info.masks is not None
    assert 2 <= num <= IGNORE_INDEX
    assert len(set(info.class_names)) == num
    for values in (info.masks.values, info.masks.colors):
        assert len(set(values)) == num
    assert min(info.image_size) > 0
    assert source.expected_info.class_names == info.class_names


@pytest.mark.parametrize("split", SPLITS)
def test_samples(source: DataSource, split: Split) -> None:
    images = source.load(split)
    num = len(source.info.class_names)
    assert isinstance(images, MaskedImages)
    counts = torch.zeros(num, dtype=torch.int64)
    unlabeled = 0
    for index in range(len(images)):
        sample = images[index]
        assert sample.index == index
        assert sample.image.dtype == sample.target.dtype == torch.uint8
        assert sample.image.shape == (3, *sample.target.shape)
        assert torch.equal(sample.target, images.target(index))
        assert torch.equal(sample.image, images.image(index))
        labeled = sample.target[sample.target != IGNORE_INDEX]
        counts += labeled.bincount(minlength=num)
        unlabeled += sample.target.numel() - len(labeled)
        assert images.location(index)
    assert images.pixel_counts.dtype == torch.int64
    assert torch.equal(images.pixel_counts, counts)
    assert images.statistics.unlabeled == unlabeled
    blank = images.blank(0)
    assert blank.image.shape[1:] == blank.target.shape


def test_sets_move_and_travel_to_workers(source: DataSource) -> None:
    images = source.load("train")
    moved = images.to(torch.device("cpu"))
    assert moved.device == torch.device("cpu")
    copy = pickle.loads(pickle.dumps(images))
    for other in (moved, copy):
        assert len(other) == len(images)
        assert torch.equal(other[1].target, images[1].target)
    if images.in_files:
        moved.add_broken({"a": "broken"})
        assert images.broken == {"a": "broken"}


def test_splits_differ_and_stay_the_same(
    source: DataSource, tmp_path: Path, write_pairs: WritePairs
) -> None:
    first = {split: source.load(split)[0].image for split in SPLITS}
    assert len({image.numpy().tobytes() for image in first.values()}) == 3
    again = build(source.info.name, tmp_path, write_pairs)
    assert again.info == source.info
    assert all(torch.equal(again.load(split)[0].image, first[split]) for split in SPLITS)


def test_all_images_together(source: DataSource) -> None:
    if source.root is None:
        with pytest.raises(DataError, match="splits of its own"):
            source.load_all()
        return
    assert len(source.load_all()) == sum(len(source.load(split)) for split in SPLITS)


def test_the_task_takes_the_samples(source: DataSource) -> None:
    images = source.load("train")
    preprocess = TASKS.get("segmentation").preprocess(
        SegmentationConfig(crop_size=(16, 16)), source.info, training=True
    )
    loader = Loader(images, 2, preprocess, shuffle=True, drop_last=True, seed=0)
    batch = next(loader.epoch(0))
    assert batch.images.shape == (2, 3, 16, 16)
    assert batch.targets.shape == (2, 16, 16)
    known = batch.targets[batch.targets != IGNORE_INDEX]
    assert int(known.max()) < len(source.info.class_names)
