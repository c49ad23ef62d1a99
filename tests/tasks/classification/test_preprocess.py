"""The one path from stored images to a classifier, and where it puts the pixels of an image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pacavit.data import (
    DataInfo,
    FileImages,
    Loader,
    MemoryImages,
    Placement,
    Region,
    Sample,
    SampleRandom,
    fit_image,
)
from pacavit.data.formats.files import list_images
from pacavit.tasks import ClassificationTask
from pacavit.tasks.classification import ClassificationConfig, ClassificationPreprocess
from pacavit.tasks.classification.config import AugmentConfig, CropConfig, MixConfig
from pacavit.tasks.classification.transforms import EvalTransform

INFO = DataInfo("test", "test", ("a", "b"), (32, 32), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def ramp(height: int, width: int) -> Tensor:
    """(3, H, W) uint8 whose first channel grows with the row, and whose second with the column."""
    rows = (torch.arange(height) + 0.5)[:, None].expand(-1, width) * (240 / height)
    columns = (torch.arange(width) + 0.5).expand(height, -1) * (240 / width)
    return torch.stack([rows, columns, torch.zeros(height, width)]).round().to(torch.uint8)


def draws(index: int = 0, epoch: int = 0) -> SampleRandom:
    return SampleRandom(seed=0, epoch=epoch, indices=torch.tensor([index]))


def make(info: DataInfo = INFO, *, training: bool = False, **config: Any) -> Any:
    return ClassificationTask.preprocess(ClassificationConfig(**config), info, training=training)


def through(
    preprocess: ClassificationPreprocess, image: Tensor, index: int = 0
) -> tuple[Tensor, Placement]:
    """(3, H, W) uint8 -> what the network sees, in 0..255, and where it lies."""
    fitted = preprocess.sample(Sample(image, 0, index), draws(index))
    batch = preprocess.batch(preprocess.collate([fitted]), draws(index))
    return batch.images[0] * 255, batch.placements[0]


def check_paste_back(seen: Tensor, placement: Placement, image: Tensor) -> None:
    """What the network saw, put where the placement says, is the image there: to 0.2 pixels."""
    assert tuple(seen.shape[1:]) == placement.input_size
    assert placement.image_size == tuple(image.shape[1:])
    restored = placement.restore(seen)
    inside = restored[0].isfinite()
    rows, columns = placement.seen_pixels()
    assert inside.sum() == len(rows) * len(columns) > 0
    # Up to the centers of the outermost cells of the input, beyond which there is no slope.
    height, width = (
        int(side / cells) + 1
        for side, cells in zip(placement.region[2:], placement.input_size, strict=True)
    )
    core = torch.zeros_like(inside)
    core[
        int(rows[0]) + height : int(rows[-1]) + 1 - height,
        int(columns[0]) + width : int(columns[-1]) + 1 - width,
    ] = True
    assert core.any()
    difference = (restored - image)[:2, core].abs().amax(1)
    one_pixel = 240 / torch.tensor(image.shape[1:])
    assert (difference < 1.5 + 0.2 * one_pixel).all(), (difference, one_pixel)  # 1.5: rounding


@pytest.mark.parametrize("size", [(64, 96), (97, 40), (50, 50), (300, 211)])
def test_without_a_crop_the_center_of_the_stored_aspect_is_placed(size: tuple[int, int]) -> None:
    info = replace(INFO, image_size=(32, 24))
    seen, placement = through(make(info), ramp(*size))
    assert seen.shape == (3, 32, 24)
    check_paste_back(seen, placement, ramp(*size))
    seen, placement = through(make(info, image_size=20), ramp(*size))
    assert seen.shape == (3, 20, 20)
    check_paste_back(seen, placement, ramp(*size))


@pytest.mark.parametrize("size", [(64, 96), (97, 40), (50, 50), (300, 211), (20, 24)])
@pytest.mark.parametrize("eval_part", [1.0, 0.875, 0.5])
def test_the_center_crop_is_placed(size: tuple[int, int], eval_part: float) -> None:
    preprocess = make(image_size=24, crop=CropConfig(eval_part=eval_part))
    seen, placement = through(preprocess, ramp(*size))
    check_paste_back(seen, placement, ramp(*size))
    shorter = min(size)
    assert placement.region.height == pytest.approx(shorter * eval_part, rel=0.05)
    assert placement.region.width == pytest.approx(placement.region.height, rel=0.05)
    assert placement.has_border is ((eval_part, size) != (1.0, (50, 50)))


@pytest.mark.parametrize("index", range(8))
def test_the_random_crop_is_placed(index: int) -> None:
    image = ramp(80, 120)
    preprocess = make(image_size=24, crop=CropConfig(scale=(0.3, 0.9)), training=True)
    seen, placement = through(preprocess, image, index)
    check_paste_back(seen, placement, image)
    share = placement.region.height * placement.region.width / (80 * 120)
    assert 0.28 < share < 0.92
    other = through(preprocess, image, index + 100)[1]
    assert other.region != placement.region


def test_what_has_the_right_size_passes_unchanged() -> None:
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    seen, placement = through(make(), image)
    torch.testing.assert_close(seen, image.float(), atol=1e-3, rtol=0)
    assert placement == Placement((32, 32), Region(0, 0, 32, 32), (32, 32))
    assert not placement.has_border


def test_images_are_cropped_where_the_config_says_so() -> None:
    plain, cropping = make(), make(image_size=24, crop=CropConfig())
    assert (plain.crop, plain.per_sample) == (None, False)
    assert cropping.per_sample
    training = ClassificationTask.preprocess(
        ClassificationConfig(image_size=24, crop=CropConfig()), INFO, training=True, image_size=20
    )
    image = ramp(40, 60)
    assert training.sample(Sample(image, 0, 0), draws())[0].image.shape == (3, 20, 20)
    assert cropping.sample(Sample(image, 0, 0), draws())[0].image.shape == (3, 24, 24)
    assert plain.sample(Sample(image, 0, 0), draws())[0].image.shape == (3, 32, 32)


def test_a_sample_keeps_its_target_and_position() -> None:
    target = torch.tensor([0, 1], dtype=torch.uint8)
    fitted, _ = make().sample(Sample(ramp(40, 60), target, 7), draws(7))
    assert fitted.target is target
    assert fitted.index == 7


def test_mixing_needs_only_samples_of_the_batch() -> None:
    config = ClassificationConfig(mix=MixConfig(mixup=1.0))
    preprocess = ClassificationTask.preprocess(config, INFO, training=True, epochs=4)
    images = MemoryImages(
        torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 1] * 3)
    )
    loader = Loader(images, 6, preprocess, shuffle=False, drop_last=True, seed=0)
    batch = next(loader.epoch(0))
    assert batch.targets.shape == (6, 2)
    torch.testing.assert_close(batch.targets.sum(1), torch.ones(6))


@pytest.fixture
def files(tmp_path: Path) -> FileImages:
    rng = np.random.default_rng(0)
    for name in INFO.class_names:
        (tmp_path / name).mkdir()
        for number in range(4):
            height, width = rng.integers(20, 60, 2)
            pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return FileImages(tmp_path, list_images(tmp_path, tmp_path, INFO.class_names), INFO.image_size)


def test_without_a_crop_files_are_fitted_to_the_stored_size(files: FileImages) -> None:
    loader = Loader(files, 8, make(image_size=20), shuffle=False, drop_last=False, seed=0)
    batch = next(loader.epoch(0))
    everything = torch.arange(8)
    fitted = torch.stack([fit_image(files[index].image, (32, 32)) for index in range(8)])
    assert torch.equal(files.batch(everything)[0], fitted)
    assert torch.equal(batch.images, EvalTransform(INFO, 20)(fitted))
    assert torch.equal(batch.targets, files.labels)
    assert [placement.image_size for placement in batch.placements] == [
        tuple(files[index].image.shape[1:]) for index in range(8)
    ]


@pytest.mark.parametrize("crop", [None, CropConfig()])
@pytest.mark.parametrize("training", [False, True])
def test_files_and_memory_give_the_same_batches(
    files: FileImages, crop: CropConfig | None, training: bool
) -> None:
    """Of images whose stored size is that of the files; others lose pixels on the way to memory."""
    for index in range(8):
        pixels = fit_image(files[index].image, (32, 32))
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(files.path(index))
    preprocess = make(
        training=training, image_size=24, crop=crop, augment=AugmentConfig(flip="random", shift=2)
    )
    kinds: tuple[FileImages | MemoryImages, ...] = (files, files.into_memory())
    first, second = (
        next(Loader(kind, 8, preprocess, shuffle=True, drop_last=True, seed=3).epoch(2))
        for kind in kinds
    )
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.targets, second.targets)
    assert torch.equal(first.indices, second.indices)
