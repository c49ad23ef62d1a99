"""Preprocessing: from stored images and their objects to the input of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.data import (
    Batch,
    DataInfo,
    ImageSet,
    ObjectImages,
    Objects,
    Placement,
    Preprocess,
    Region,
    Sample,
    SampleRandom,
    mean_color,
    normalize,
    pad_images,
)
from pacavit.data.formats.image import resize_image
from pacavit.errors import DataError, RecipeError
from pacavit.tasks.detection.config import DetectionConfig
from pacavit.tasks.detection.copy_paste import copy_paste
from pacavit.tasks.detection.window import Window, choose_window, visible_objects
from pacavit.tasks.photometric import PhotometricDistortion

__all__ = ["DetectionPreprocess", "check_objects"]

_LEAST_SIDE = 2  # pixels; torchvision fails for images of one pixel


class DetectionPreprocess(Preprocess):
    """Resize, crop, augment and normalize images together with their objects.

    In training, images are resized, cropped, flipped and changed in color. Their targets become
    mappings with "boxes" (num, 4) float32 in pixels of the input, "labels" (num,) int64 and, if
    asked for, "masks" (num, height, width) bool; crowd regions are left out. In evaluation images
    are resized only, and targets stay ``Objects`` in pixels of the original. Batches are padded
    with the mean color, right and below, to their largest image; in training with a ``crop_size``,
    to that.

    Args:
        config: of the task.
        info: of the data that the model is, or was, trained on.
        training: with random changes.
        image_size: replaces the config's own; all other sizes shrink in proportion.
        masks: objects have masks too.

    Raises:
        RecipeError: training images of the usual size are resized to less than 2 pixels, or objects
            without masks are to be pasted.
    """

    per_sample = True

    def __init__(
        self,
        config: DetectionConfig,
        info: DataInfo,
        *,
        training: bool,
        image_size: int | None = None,
        masks: bool = False,
    ) -> None:
        if image_size is not None:
            config = _shrunk(config, info.image_size, image_size)
        self.config, self.info, self.training, self.masks = config, info, training, masks
        augment = config.augment
        if training and augment.copy_paste and not masks:
            raise RecipeError(
                "task.augment.copy_paste needs masks: use the task instance_segmentation, or set "
                "it to 0"
            )
        if training and augment.copy_paste:
            self.unit = 2
        factor = 1.0 if augment.scale is None else augment.scale[0]
        sizes = augment.sizes or (config.image_size,)
        least = min(min(config.resized(info.image_size, size)) for size in sizes)
        if training and round(least * factor) < _LEAST_SIDE:
            raise RecipeError(
                f"images are resized to {round(least * factor)} pixels at least, which is too "
                "small; raise task.image_size, task.longest_side, task.augment.sizes or "
                "task.augment.scale"
            )
        self.distort = PhotometricDistortion(augment.photometric)
        self.fill = mean_color(info)

    def groups(self, images: ImageSet) -> Tensor | None:
        """In training: wide images, tall ones, and -1 for those without objects."""
        if not (self.training and isinstance(images, ObjectImages)):
            return None
        check_objects(images, masks=self.masks)
        sizes, objects = images.layout
        # Crops have one size, so batches of them have no padding.
        tall = (sizes[:, 0] > sizes[:, 1]).long()
        grouped = self.config.group_by_aspect and self.config.crop_size is None
        groups = tall if grouped else torch.zeros_like(tall)
        return groups if self.config.empty_images else groups.masked_fill(objects == 0, -1)

    def sample(self, sample: Sample, random: SampleRandom) -> tuple[Sample, Placement]:
        """One image of any size with its ``Objects``, or without."""
        full = (sample.image.shape[1], sample.image.shape[2])
        if self.training:
            return self._training_sample(sample, random, full)
        size = self.config.resized(full)
        image = resize_image(sample.image, size)
        return replace(sample, image=image), Placement(full, Region(0, 0, *full), size)

    def collate(self, samples: Sequence[tuple[Sample, Placement]]) -> Batch:
        """Samples of any sizes -> a batch; targets are a list."""
        chosen = [sample for sample, _ in samples]
        images = [sample.image for sample in chosen]
        if self.training and self.config.crop_size is not None:
            # Room for a whole crop, whatever the images of this batch are.
            images = [*images, images[0].new_empty(3, *self.config.crop_size)]
        padded = pad_images(images, self.fill)[: len(chosen)]
        targets = [sample.target for sample in chosen]
        if self.training:
            targets = [_padded(target, padded.shape[2:]) for target in targets]
        return Batch(
            padded,
            None if all(target is None for target in targets) else targets,
            torch.tensor([sample.index for sample in chosen]),
            placements=[placement for _, placement in samples],
        )

    def batch(self, batch: Batch, random: SampleRandom) -> Batch:
        """(B, 3, height, width) uint8 -> normalized float32, channels-last."""
        if self.unit == 2:
            batch = copy_paste(batch, self.config.augment, random)
        pixels = batch.images.contiguous(memory_format=torch.channels_last).float()
        return replace(batch, images=normalize(pixels, self.info))

    def _training_sample(
        self, sample: Sample, random: SampleRandom, full: tuple[int, int]
    ) -> tuple[Sample, Placement]:
        config, augment = self.config, self.config.augment
        shorter = config.image_size
        if augment.sizes:
            drawn = int(random.integers("size", 0, len(augment.sizes)))
            shorter = augment.sizes[drawn]
        objects: Objects = sample.target
        # Crowd regions hold objects that nobody has outlined one by one.
        objects = objects[~objects.crowd]
        window = self._cut(full, objects.boxes, random)
        height, width = config.resized(window.size, shorter)
        if augment.scale is not None:
            low, high = augment.scale
            factor = low + float(random.uniform("scale")) * (high - low)
            height, width = (max(1, round(side * factor)) for side in (height, width))
        window = window.enlarged((height, width))
        if config.crop_size is not None:
            window = choose_window(window, objects.boxes, config.crop_size, augment, random)
        if augment.flip != "none":
            window = window.flipped(
                horizontal=float(random.uniform("flip")) < 0.5,
                vertical=augment.flip == "both" and float(random.uniform("flip down")) < 0.5,
            )
        target = visible_objects(objects, window, augment.min_visible, masks=self.masks)
        image = self.distort(window.of_image(sample.image), random)
        return replace(sample, image=image, target=target), window.placement

    def _cut(self, full: tuple[int, int], boxes: Tensor, random: SampleRandom) -> Window:
        """The part of an image of a size that is cut out before it is resized, or all of it."""
        first = self.config.augment.crop_first
        if first is None or float(random.uniform("crop first")) >= first.probability:
            return Window.whole(full, full)
        shorter = first.sizes[int(random.integers("first size", 0, len(first.sizes)))]
        factor = shorter / min(full)
        resized = (max(1, round(full[0] * factor)), max(1, round(full[1] * factor)))
        low, high = first.sides
        part = random.integers("first sides", low, high + 1, 2).flatten().tolist()
        whole = Window.whole(full, resized)
        return choose_window(whole, boxes, (part[0], part[1]), self.config.augment, random)


def check_objects(images: ObjectImages, *, masks: bool) -> None:
    """Raise DataError if no image of a split has an object, or if needed masks are missing."""
    if not bool(images.layout.objects.any()):
        raise DataError(
            f"none of the {len(images):,} images has an object that is no crowd; check the "
            "annotations"
        )
    if masks and images.target(0).masks is None:
        raise DataError(
            "the objects of the images have no masks, which instance segmentation needs; give "
            'masks, or use task.name="detection"'
        )


def _shrunk(config: DetectionConfig, stored: tuple[int, int], image_size: int) -> DetectionConfig:
    """The config for images of another size, with all lengths in proportion."""
    factor = image_size / min(config.resized(stored))

    def shrunk(sides: Sequence[int]) -> tuple[int, ...]:
        return tuple(max(1, round(side * factor)) for side in sides)

    first = config.augment.crop_first
    if first is not None:
        update = {"sizes": shrunk(first.sizes), "sides": shrunk(first.sides)}
        first = first.model_copy(update=update)
    crop, longest = config.crop_size, config.longest_side
    augment = {"sizes": shrunk(config.augment.sizes), "crop_first": first}
    return config.model_copy(
        update={
            "image_size": image_size,
            "longest_side": None if longest is None else shrunk([longest])[0],
            "crop_size": None if crop is None else config.input_size(stored, image_size),
            "augment": config.augment.model_copy(update=augment),
        }
    )


def _padded(target: dict[str, Tensor], size: Sequence[int]) -> dict[str, Tensor]:
    """A target with its masks padded to a size, right and below."""
    masks = target.get("masks")
    if masks is None:
        return target
    below, right = size[0] - masks.shape[1], size[1] - masks.shape[2]
    return {**target, "masks": F.pad(masks, (0, right, 0, below))}
