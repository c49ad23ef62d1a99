"""Preprocessing: from stored images to a classifier's input."""

from __future__ import annotations

from dataclasses import replace

from pacavit.data import Batch, DataInfo, Placement, Preprocess, Sample, SampleRandom
from pacavit.data.formats.image import center_region, fit_image
from pacavit.tasks.classification.config import ImageConfig
from pacavit.tasks.classification.crops import CenterCrop, RandomCrop
from pacavit.tasks.classification.mixing import Mix
from pacavit.tasks.classification.transforms import EvalTransform, TrainTransform

__all__ = ["ClassificationPreprocess"]


class ClassificationPreprocess(Preprocess):
    """Crop, augment, normalize and mix images, as configured in a recipe.

    Images of any size are cropped and resized to one size: by ``config.crop`` if it is set,
    otherwise to the size of the stored images, around the center. Images of that size are
    unchanged.

    Args:
        config: of the task.
        info: of the data that the model is, or was, trained on.
        training: with random crops, augmentation and mixing.
        image_size: height and width of the network's input in pixels; None for the config's own,
            or that of the stored images.
        epochs: of the run; mixing ends after a fraction of them.

    Raises:
        RecipeError: an augmentation needs larger images.
    """

    def __init__(
        self,
        config: ImageConfig,
        info: DataInfo,
        *,
        training: bool,
        image_size: int | None = None,
        epochs: int = 1,
    ) -> None:
        size = image_size or config.image_size
        self.stored_size = info.image_size
        self.crop: RandomCrop | CenterCrop | None = None
        if config.crop is not None:
            kind = RandomCrop if training else CenterCrop
            self.crop = kind(config.crop, size or min(info.image_size))
        self.per_sample = self.crop is not None
        self.transform: TrainTransform | EvalTransform
        self.mix: Mix | None = None
        if training:
            self.transform = TrainTransform(config, info, image_size)
            if config.mix.mixup or config.mix.cutmix:
                self.mix = Mix(config.mix, len(info.class_names), epochs)
                self.unit = 2
        else:
            self.transform = EvalTransform(info, size)

    def sample(self, sample: Sample, random: SampleRandom) -> tuple[Sample, Placement]:
        """One image of any size, cropped and resized to the size of a batch."""
        full = (sample.image.shape[1], sample.image.shape[2])
        if self.crop is None:
            image, region = (
                fit_image(sample.image, self.stored_size),
                center_region(full, self.stored_size),
            )
        else:
            image, region = self.crop(sample.image, random)
        fitted = (image.shape[1], image.shape[2])
        region = center_region(fitted, self.transform.size).inside(region, fitted)
        return replace(sample, image=image), Placement(full, region, self.transform.size)

    def batch(self, batch: Batch, random: SampleRandom) -> Batch:
        """(B, 3, H, W) uint8 -> (B, 3, height, width) float32, channels-last; mixed in training."""
        images = self.transform(batch.images, random)
        batch = Batch(images, batch.targets, batch.indices, placements=batch.placements)
        return batch if self.mix is None else self.mix(batch, random)
