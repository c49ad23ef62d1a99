from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from pacavit.data import IGNORE_INDEX, DataInfo, Sample, SampleRandom
from pacavit.errors import RecipeError
from pacavit.tasks.segmentation import SegmentationConfig, SegmentationPreprocess
from pacavit.tasks.segmentation.config import MaskAugmentConfig
from pacavit.tasks.segmentation.preprocess import choose_crop, resize_mask

INFO = DataInfo(
    "masks", "test", ("sky", "road", "car"), (24, 32), (0.5, 0.25, 0.75), (0.2, 0.2, 0.2)
)
PLAIN = {"scale": (1.0, 1.0), "flip": "none", "photometric": 0.0, "max_class_fraction": 1.0}


def draws(index: int = 0, epoch: int = 0) -> SampleRandom:
    return SampleRandom(0, epoch, torch.tensor([index]))


def config(augment: dict[str, Any] | None = None, **fields: Any) -> SegmentationConfig:
    augmented = MaskAugmentConfig.model_validate({**PLAIN, **(augment or {})})
    return SegmentationConfig(augment=augmented, **fields)


def training(made: SegmentationConfig, image_size: int | None = None) -> SegmentationPreprocess:
    return SegmentationPreprocess(made, INFO, training=True, image_size=image_size)


def coded(height: int = 24, width: int = 32) -> Sample:
    """An image whose red channel is 20 times its mask, in blocks of 4 x 4 pixels."""
    torch.manual_seed(0)
    blocks = torch.randint(0, 3, (height // 4, width // 4), dtype=torch.uint8)
    mask = blocks.repeat_interleave(4, 0).repeat_interleave(4, 1)
    return Sample(torch.stack([mask * 20, mask, mask]), mask, 0)


def agree(image: Tensor, mask: Tensor) -> bool:
    known = mask != IGNORE_INDEX
    return torch.equal(image[0][known], mask[known] * 20)


def test_image_and_mask_are_cropped_flipped_and_padded_together() -> None:
    made = config({"flip": "random"}, crop_size=(16, 20))
    flipped = set()
    for index in range(8):
        sample, placement = training(made).sample(coded(), draws(index))
        assert sample.image.shape == (3, 16, 20)
        assert sample.target.shape == (16, 20)
        assert agree(sample.image, sample.target)
        top, left, height, width = map(int, placement.region)
        assert (height, width) == (16, 20)
        part = coded().target[top : top + 16, left : left + 20]
        flipped.add(not torch.equal(sample.target, part))
        assert torch.equal(sample.target, part) or torch.equal(sample.target, part.flip(1))
    assert flipped == {True, False}


def test_small_images_are_padded_with_the_mean_color_and_ignored_pixels() -> None:
    sample, placement = training(config(crop_size=(30, 40))).sample(coded(), draws())
    assert agree(sample.image, sample.target)
    assert (sample.target[24:] == IGNORE_INDEX).all()
    assert (sample.target[:, 32:] == IGNORE_INDEX).all()
    assert sample.image[:, -1, -1].tolist() == [128, 64, 191]
    assert placement.region == (0, 0, 30, 40)


def test_scales_are_within_their_range_and_keep_edges_of_the_mask() -> None:
    made = config({"scale": (0.5, 2.0)}, crop_size=(48, 64))
    heights = []
    for index in range(20):
        sample, _ = training(made).sample(coded(), draws(index))
        known = (sample.target != IGNORE_INDEX).any(1)
        heights.append(int(known.sum()))
        assert set(sample.target.unique().tolist()) <= {0, 1, 2, IGNORE_INDEX}
    assert min(heights) >= 12
    assert max(heights) <= 48
    assert len(set(heights)) > 10


def test_crops_of_one_class_are_drawn_again() -> None:
    mask = torch.zeros(20, 200, dtype=torch.uint8)
    mask[:, 180:] = 1
    augment = MaskAugmentConfig(max_class_fraction=0.75)
    always = MaskAugmentConfig(max_class_fraction=1.0)

    def mixed(config: MaskAugmentConfig) -> int:
        count = 0
        for index in range(200):
            top, left = choose_crop(mask, (20, 40), config, draws(index))
            assert top == 0
            assert 0 <= left <= 160
            count += len(mask[:, left : left + 40].unique()) > 1
        return count

    assert mixed(augment) > 2 * mixed(always)


def test_colors_change_and_masks_do_not() -> None:
    plain, colored = training(config()), training(config({"photometric": 1.0}))
    changed = 0
    for index in range(8):
        before, _ = plain.sample(coded(), draws(index))
        after, _ = colored.sample(coded(), draws(index))
        assert torch.equal(before.target, after.target)
        changed += not torch.equal(before.image, after.image)
    assert changed >= 6


def test_samples_depend_on_seed_epoch_and_index_alone() -> None:
    made = training(config({"scale": (0.5, 2.0), "flip": "random", "photometric": 1.0}))
    first, _ = made.sample(coded(), draws(3, epoch=2))
    torch.manual_seed(99)
    again, _ = made.sample(coded(), draws(3, epoch=2))
    other, _ = made.sample(coded(), draws(3, epoch=3))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.target, again.target)
    assert not torch.equal(first.image, other.image)


def test_evaluation_resizes_images_and_keeps_masks() -> None:
    made = SegmentationPreprocess(config(image_size=12), INFO, training=False)
    samples = [made.sample(coded(), draws()), made.sample(coded(40, 24), draws())]
    assert [tuple(sample.image.shape[1:]) for sample, _ in samples] == [(12, 16), (20, 12)]
    batch = made.batch(made.collate(samples), draws())
    assert batch.images.shape == (2, 3, 20, 16)
    assert [tuple(mask.shape) for mask in batch.targets] == [(24, 32), (40, 24)]
    assert [each.input_size for each in batch.placements] == [(12, 16), (20, 12)]
    # The padding has the mean color, which normalization makes 0 up to rounding to bytes.
    assert batch.images[0, :, 12:].abs().max() < 0.011


@pytest.mark.parametrize(
    ("stored", "expected"), [((24, 32), (12, 16)), ((12, 96), (4, 32)), ((33, 12), (32, 12))]
)
def test_longest_side_bounds_resizing(stored: tuple[int, int], expected: tuple[int, int]) -> None:
    assert config(image_size=12, longest_side=32).resized(stored) == expected


def test_smaller_images_of_progressive_training_have_smaller_crops() -> None:
    made = config(crop_size=(12, 16))
    assert made.input_size((24, 32)) == (12, 16)
    assert made.input_size((24, 32), 12) == (6, 8)
    sample, _ = training(made, image_size=12).sample(coded(), draws())
    assert sample.target.shape == (6, 8)
    assert sample.image.shape == (3, 6, 8)


def test_masks_are_resized_to_the_nearest_pixel() -> None:
    mask = torch.tensor([[0, 1], [2, 255]], dtype=torch.uint8)
    assert resize_mask(mask, (4, 2)).tolist() == [[0, 1], [0, 1], [2, 255], [2, 255]]


@pytest.mark.parametrize(
    "fields",
    [
        {"augment": {"scale": (2.0, 0.5)}},
        {"slide": {"window": (8, 8), "stride": (9, 8)}},
        {"crop_size": (0, 8)},
        {"augment": {"photometric": 2.0}},
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SegmentationConfig.model_validate(fields)


def test_crops_that_no_image_fills_are_refused_before_they_are_made() -> None:
    training(config(crop_size=(40, 60)))
    with pytest.raises(RecipeError, match=r"\[4000, 4000\] is far larger than the images"):
        training(config(crop_size=(4000, 4000)))
