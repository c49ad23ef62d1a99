"""What a recipe may say about classification."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pacavit.tasks.base import TaskConfig

__all__ = ["AugmentConfig", "ClassificationConfig", "CropConfig", "ImageConfig", "MixConfig"]

# timm ignores parts of such a name that it does not understand; here they are a mistake.
_RAND_AUGMENT = re.compile(r"rand(-(m|n|mmax)[1-9]\d*|-(mstd|p)\d+(\.\d+)?|-inc[01])*", re.ASCII)


class AugmentConfig(BaseModel):
    """Random changes of the training images; everything is off by default."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    flip: Literal["none", "random", "alternate"] = Field(
        default="none",
        description="Mirror left and right: at random, or in turns, that is every image every "
        "other epoch after one random draw.",
    )
    shift: int = Field(
        default=0, ge=0, description="Move by up to this many pixels, with reflected edges."
    )
    rotate: float = Field(
        default=0.0, ge=0, le=180, description="Turn by up to this many degrees, either way."
    )
    scale: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Enlarge or shrink by up to this part of the size, for example 0.1.",
    )
    brightness: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Multiply the pixels by up to 1 plus or minus this, for example 0.13.",
    )
    contrast: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Multiply the distance of the pixels from the image's mean by up to 1 plus "
        "or minus this.",
    )
    cutout: int = Field(
        default=0,
        ge=0,
        description="Side in pixels of a square, at a random place, that is set to the mean "
        "color; 0 leaves it out.",
    )
    rand_augment: str | None = Field(
        default=None,
        description='RandAugment as timm names it, for example "rand-m9-n2-mstd0.5-inc1": '
        "magnitude, changes an image, spread of the magnitude, stronger with the magnitude.",
    )
    random_erasing: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Part of the images in which a rectangle, at a random place, becomes noise.",
    )

    @field_validator("rand_augment")
    @classmethod
    def _known_to_timm(cls, value: str | None) -> str | None:
        if value is not None and not _RAND_AUGMENT.fullmatch(value):
            raise ValueError("a RandAugment as timm names it, such as 'rand-m9-n2-mstd0.5-inc1'")
        return value


class MixConfig(BaseModel):
    """Pictures and labels of two images blended into one another; off by default."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    mixup: float = Field(
        default=0.0,
        ge=0,
        description="Blend two images with weights drawn from Beta(this, this); 0 leaves it out.",
    )
    cutmix: float = Field(
        default=0.0,
        ge=0,
        description="Exchange a rectangle of two images, the rest of the area drawn from "
        "Beta(this, this); 0 leaves it out.",
    )
    prob: float = Field(
        default=1.0, ge=0, le=1, description="Part of the pairs of images that are mixed at all."
    )
    switch_prob: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Part of the mixed pairs that take cutmix, where both are on.",
    )
    until: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Fraction of the epochs after which images are no longer mixed.",
    )


class CropConfig(BaseModel):
    """How images of all sizes become ``image_size``, each by itself: for photographs in files."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    scale: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = Field(
        default=(0.08, 1.0),
        description="In training a part with at least and at most these shares of the area is cut "
        "out at random.",
    )
    ratio: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        default=(3 / 4, 4 / 3), description="Least and largest width over height of that part."
    )
    interpolation: Literal["bilinear", "bicubic"] = Field(
        default="bicubic", description="How pixels are resized, in training and measuring."
    )
    eval_part: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="In measuring, the share of the shorter side that is kept, at the center.",
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if low > high:
                raise ValueError(f"{name} = [least, largest]")
        return self


class ImageConfig(TaskConfig):
    """How images become the input of a network that classifies them."""

    augment: AugmentConfig = Field(
        default_factory=AugmentConfig, description="Random changes of the training images."
    )
    mix: MixConfig = Field(
        default_factory=MixConfig, description="Training images blended into one another."
    )
    crop: CropConfig | None = Field(
        default=None,
        description="How images of all sizes are cut to image_size; leave it out for images that "
        "are stored with one size.",
    )


class ClassificationConfig(ImageConfig):
    """Settings of the classification task."""

    name: Literal["classification"] = Field(default="classification", description="The task.")
    label_smoothing: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Part of the target probability that is spread over all classes.",
    )
