"""The ``[task]`` section of a recipe for classification."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pacavit.tasks.base import TaskConfig

__all__ = ["AugmentConfig", "ClassificationConfig", "CropConfig", "ImageConfig", "MixConfig"]

# timm ignores unknown parts of such a name; here they are an error.
_RAND_AUGMENT = re.compile(r"rand(-(m|n|mmax)[1-9]\d*|-(mstd|p)\d+(\.\d+)?|-inc[01])*", re.ASCII)


class AugmentConfig(BaseModel):
    """Random changes of the training images; everything is off by default."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    flip: Literal["none", "random", "alternate"] = Field(
        default="none",
        description='Horizontal flip: "random", or "alternate": each image is flipped in every '
        "other epoch, beginning with a random one of the first two.",
    )
    shift: int = Field(
        default=0, ge=0, description="Translate by up to this many pixels; edges are reflected."
    )
    rotate: float = Field(
        default=0.0, ge=0, le=180, description="Rotate by up to this many degrees, either way."
    )
    scale: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Enlarge or shrink by up to this fraction of the size, for example 0.1.",
    )
    brightness: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Multiply the pixels by a factor of 1 plus or minus up to this, for example "
        "0.13.",
    )
    contrast: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Multiply the difference of the pixels to the image's mean by a factor of 1 "
        "plus or minus up to this.",
    )
    cutout: int = Field(
        default=0,
        ge=0,
        description="Side in pixels of a square, at a random place, that is set to the mean "
        "color; 0 leaves it out.",
    )
    rand_augment: str | None = Field(
        default=None,
        description='RandAugment in timm\'s notation, for example "rand-m9-n2-mstd0.5-inc1": '
        "magnitude 9, 2 operations per image, standard deviation of the magnitude 0.5, operations "
        "whose strength increases with the magnitude.",
    )
    random_erasing: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Fraction of the images in which a random rectangle is replaced by noise.",
    )

    @field_validator("rand_augment")
    @classmethod
    def _known_to_timm(cls, value: str | None) -> str | None:
        if value is not None and not _RAND_AUGMENT.fullmatch(value):
            raise ValueError("RandAugment in timm's notation, such as 'rand-m9-n2-mstd0.5-inc1'")
        return value


class MixConfig(BaseModel):
    """Mixup and cutmix: training images and their labels mixed in pairs; off by default."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    mixup: float = Field(
        default=0.0,
        ge=0,
        description="Mixup: blend two images with weights drawn from Beta(this, this); 0: off.",
    )
    cutmix: float = Field(
        default=0.0,
        ge=0,
        description="Cutmix: exchange a rectangle of two images, with the area outside of it drawn "
        "from Beta(this, this); 0: off.",
    )
    prob: float = Field(
        default=1.0, ge=0, le=1, description="Fraction of the pairs of images that are mixed."
    )
    switch_prob: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Fraction of the mixed pairs that use cutmix, if mixup is on too.",
    )
    until: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Images are mixed in this first fraction of the epochs.",
    )


class CropConfig(BaseModel):
    """Crop and resize each image to ``image_size``, for image files of different sizes."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    scale: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = Field(
        default=(0.08, 1.0),
        description="In training, least and largest fraction of the area in a random crop.",
    )
    ratio: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        default=(3 / 4, 4 / 3), description="Least and largest width over height of that crop."
    )
    interpolation: Literal["bilinear", "bicubic"] = Field(
        default="bicubic", description="Interpolation, in training and evaluation."
    )
    eval_part: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="In evaluation, the fraction of the shorter side in the center crop (timm's "
        "crop_pct).",
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if low > high:
                raise ValueError(f"{name} = [least, largest]")
        return self


class ImageConfig(TaskConfig):
    """Settings of preprocessing and augmentation, for tasks that classify images."""

    augment: AugmentConfig = Field(
        default_factory=AugmentConfig, description="Random changes of the training images."
    )
    mix: MixConfig = Field(
        default_factory=MixConfig, description="Mixup and cutmix of training images."
    )
    crop: CropConfig | None = Field(
        default=None,
        description="Crop images of any size to image_size; leave it out for images that are "
        "stored with one size.",
    )


class ClassificationConfig(ImageConfig):
    """Settings of the classification task."""

    name: Literal["classification"] = Field(default="classification", description="The task.")
    label_smoothing: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Label smoothing: fraction of the target probability that is spread over all "
        "classes.",
    )
    calibrate: bool = Field(
        default=True,
        description="After training, fit a temperature on the validation images and store it with "
        "the weights; probabilities are then calibrated, and predicted classes are the same.",
    )
