"""The ``[task]`` section of a recipe for semantic segmentation."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pacavit.tasks.dense import DenseConfig, Side

__all__ = ["MaskAugmentConfig", "SegmentationConfig", "SlideConfig"]


class MaskAugmentConfig(BaseModel):
    """Random changes of training images and their masks; off by default but for scale and flip."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        default=(0.5, 2.0),
        description="Least and largest factor by which images are resized before the crop.",
    )
    flip: Literal["none", "random"] = Field(
        default="random", description="Mirror half of the images, left to right."
    )
    photometric: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Strength of random brightness, contrast, saturation and hue; 1 is that "
        "of mmsegmentation, 0 leaves them out.",
    )
    max_class_fraction: float = Field(
        default=0.75,
        gt=0,
        le=1,
        description="A crop is drawn again, up to ten times, while one class has more than this "
        "fraction of its labeled pixels; 1 takes the first crop.",
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.scale[0] > self.scale[1]:
            raise ValueError("scale = [least, largest]")
        return self


class SlideConfig(BaseModel):
    """Predict windows of an image and average their logits, for images far larger than crops."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    window: tuple[Side, Side] = Field(description="Height and width of the windows in pixels.")
    stride: tuple[Side, Side] = Field(
        description="Pixels from one window to the next, down and to the right."
    )

    @model_validator(mode="after")
    def _covers(self) -> Self:
        if self.stride[0] > self.window[0] or self.stride[1] > self.window[1]:
            raise ValueError("a stride of at most the window, so that windows cover the image")
        return self


class SegmentationConfig(DenseConfig):
    """Settings of the segmentation task.

    Images keep their aspect ratio. They are resized to ``image_size`` (the shorter side) first, in
    training and in evaluation; predictions are resized back to the pixels of the original.
    """

    name: Literal["segmentation"] = Field(default="segmentation", description="The task.")
    crop_size: tuple[Side, Side] | None = Field(
        default=None,
        description="Height and width in pixels of the crops in training; leave it out for those "
        "of a whole image.",
    )
    head: str = Field(default="paca", description="Segmentation head, see `pacavit list heads`.")
    head_options: dict[str, Any] = Field(
        default={}, description="Keyword arguments of the head's class."
    )
    augment: MaskAugmentConfig = Field(
        default_factory=MaskAugmentConfig, description="Random changes of the training images."
    )
    slide: SlideConfig | None = Field(
        default=None,
        description="Predict images window by window; leave it out to predict whole images.",
    )
