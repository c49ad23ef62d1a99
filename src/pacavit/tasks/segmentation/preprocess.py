"""Preprocessing: from stored images and masks to the input of a segmentation network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.data import (
    IGNORE_INDEX,
    Batch,
    DataInfo,
    Placement,
    Preprocess,
    Region,
    Sample,
    SampleRandom,
    mean_color,
    normalize,
    pad_image,
    pad_images,
)
from pacavit.data.formats.image import resize_image
from pacavit.errors import RecipeError
from pacavit.tasks.photometric import PhotometricDistortion
from pacavit.tasks.segmentation.config import MaskAugmentConfig, SegmentationConfig

__all__ = ["SegmentationPreprocess", "choose_crop", "resize_mask"]

_DRAWS = 10  # of a crop, until no class has too much of it
_MOST_PADDING = 4  # area of a crop over that of the largest image
_LEAST_SIDE = 2  # pixels; torchvision fails for images of one pixel


class SegmentationPreprocess(Preprocess):
    """Resize, crop, augment and normalize images together with their masks.

    In training, images are resized by a random factor, cropped to one size (padded with the mean
    color and ``IGNORE_INDEX`` where they are smaller), flipped, and changed in color. In
    evaluation they are resized only, keep their masks in the original's pixels, and are padded
    right and below to the largest of the batch.

    Args:
        config: of the task.
        info: of the data that the model is, or was, trained on.
        training: with random changes.
        image_size: replaces the config's own; a crop shrinks in proportion.

    Raises:
        RecipeError: training images of the usual size are resized to less than 2 pixels, or their
            crops would be padding for the most part.
    """

    per_sample = True

    def __init__(
        self,
        config: SegmentationConfig,
        info: DataInfo,
        *,
        training: bool,
        image_size: int | None = None,
    ) -> None:
        if image_size is not None:
            shape = config.input_size(info.image_size, image_size)
            config = config.model_copy(update={"image_size": image_size, "crop_size": shape})
        self.config, self.info, self.training = config, info, training
        self.crop_size = config.input_size(info.image_size)
        least = [
            max(1, round(side * config.augment.scale[0]))
            for side in config.resized(info.image_size)
        ]
        if training and min(least) < _LEAST_SIDE:
            raise RecipeError(
                f"images are resized to {least[0]} x {least[1]} pixels at least, which is too "
                "small; raise task.image_size, task.longest_side or task.augment.scale"
            )
        largest = [side * config.augment.scale[1] for side in config.resized(info.image_size)]
        if training and math.prod(self.crop_size) > _MOST_PADDING * math.prod(largest):
            raise RecipeError(
                f"task.crop_size {list(self.crop_size)} is far larger than the images, which have "
                f"{largest[0]:.0f} x {largest[1]:.0f} pixels at most; lower it, or raise "
                "task.image_size"
            )
        self.distort = PhotometricDistortion(config.augment.photometric)
        self.fill = mean_color(info)

    def sample(self, sample: Sample, random: SampleRandom) -> tuple[Sample, Placement]:
        """One image of any size with its mask (H, W), or without one."""
        full = (sample.image.shape[1], sample.image.shape[2])
        size = self.config.resized(full)
        if self.training:
            return self._training_sample(sample, random, full, size)
        image = resize_image(sample.image, size)
        return replace(sample, image=image), Placement(full, Region(0, 0, *full), size)

    def collate(self, samples: Sequence[tuple[Sample, Placement]]) -> Batch:
        """Samples -> a batch; in evaluation images may differ in size, and targets are a list."""
        if self.training:
            return super().collate(samples)
        chosen = [sample for sample, _ in samples]
        targets = [sample.target for sample in chosen]
        return Batch(
            pad_images([sample.image for sample in chosen], self.fill),
            None if all(target is None for target in targets) else targets,
            torch.tensor([sample.index for sample in chosen]),
            placements=[placement for _, placement in samples],
        )

    def batch(self, batch: Batch, random: SampleRandom) -> Batch:
        """(B, 3, height, width) uint8 -> normalized float32, channels-last."""
        pixels = batch.images.contiguous(memory_format=torch.channels_last).float()
        return replace(batch, images=normalize(pixels, self.info))

    def _training_sample(
        self, sample: Sample, random: SampleRandom, full: tuple[int, int], size: tuple[int, int]
    ) -> tuple[Sample, Placement]:
        augment = self.config.augment
        low, high = augment.scale
        factor = low + float(random.uniform("scale")) * (high - low)
        height, width = (max(1, round(side * factor)) for side in size)
        image, mask = resize_image(sample.image, (height, width)), sample.target
        mask = resize_mask(mask, (height, width))
        top, left = choose_crop(mask, self.crop_size, augment, random)
        rows, columns = self.crop_size
        image = image[:, top : top + rows, left : left + columns]
        mask = mask[top : top + rows, left : left + columns]
        if augment.flip == "random" and float(random.uniform("flip")) < 0.5:
            image, mask = image.flip(2), mask.flip(1)
        image = self.distort(image, random)
        covered = Region(top, left, rows, columns).inside(Region(0, 0, *full), (height, width))
        mask = F.pad(
            mask, (0, columns - mask.shape[1], 0, rows - mask.shape[0]), value=IGNORE_INDEX
        )
        sample = replace(sample, image=pad_image(image, self.crop_size, self.fill), target=mask)
        return sample, Placement(full, covered, self.crop_size)


def choose_crop(
    mask: Tensor, size: tuple[int, int], augment: MaskAugmentConfig, random: SampleRandom
) -> tuple[int, int]:
    """Top and left of a random crop of at most ``size`` in which no class dominates.

    Args:
        mask: (H, W) classes of the pixels.
        size: height and width of the crop.
        augment: with the largest fraction of a class.
        random: of one sample.
    """
    top, left = 0, 0
    spare = [max(0, have - want) for have, want in zip(mask.shape, size, strict=True)]
    if spare == [0, 0]:
        return top, left
    places = random.uniform("crop", 2 * _DRAWS).view(_DRAWS, 2).tolist()
    for down, right in places:
        top, left = int(down * (spare[0] + 1)), int(right * (spare[1] + 1))
        if augment.max_class_fraction == 1:
            break
        part = mask[top : top + size[0], left : left + size[1]].flatten()
        counts = part.bincount(minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
        # A crop without a second class teaches less, as one without labels.
        if int((counts > 0).sum()) > 1 and (
            int(counts.max()) <= augment.max_class_fraction * int(counts.sum())
        ):
            break
    return top, left


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W) -> (height, width) of the nearest pixels."""
    if tuple(mask.shape) == size:
        return mask
    # As bytes, not as numbers, which would be slower.
    return F.interpolate(mask[None, None], size=size, mode="nearest-exact")[0, 0]
