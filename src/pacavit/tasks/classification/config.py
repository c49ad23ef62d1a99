"""What a recipe may say about classification."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pacavit.tasks.base import TaskConfig

__all__ = ["AugmentConfig", "ClassificationConfig"]


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
        "colour; 0 leaves it out.",
    )


class ClassificationConfig(TaskConfig):
    """Settings of the classification task."""

    name: Literal["classification"] = Field(default="classification", description="The task.")
    label_smoothing: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Part of the target probability that is spread over all classes.",
    )
    augment: AugmentConfig = Field(
        default_factory=AugmentConfig, description="Random changes of the training images."
    )
