"""The ``[task]`` sections of recipes for detection and instance segmentation."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pacavit.tasks.dense import DenseConfig, Side

__all__ = [
    "CropFirstConfig",
    "DetectionConfig",
    "InstanceSegmentationConfig",
    "ObjectAugmentConfig",
]

Factor = Annotated[float, Field(gt=0)]


class CropFirstConfig(BaseModel):
    """Cut a part out of an image before it is resized, as DETR does."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    sizes: tuple[Side, ...] = Field(
        min_length=1,
        description="Shorter sides in pixels, to one of which the image is resized for the cut.",
    )
    sides: tuple[Side, Side] = Field(
        description="Least and largest height and width of the part, drawn independently."
    )
    probability: float = Field(default=0.5, ge=0, le=1, description="Fraction of the images.")

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.sides[0] > self.sides[1]:
            raise ValueError("sides = [least, largest]")
        return self


class ObjectAugmentConfig(BaseModel):
    """Random changes of training images and their objects; off by default but for the flip."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    flip: Literal["none", "horizontal", "both"] = Field(
        default="horizontal",
        description="Mirror half of the images, left to right; or half of them in each direction.",
    )
    sizes: tuple[Side, ...] = Field(
        default=(),
        description="Shorter sides, one of which is drawn for each image instead of "
        "task.image_size (multi-scale training).",
    )
    crop_first: CropFirstConfig | None = Field(
        default=None,
        description="Cut a part out of some images before they are resized; it shows at least one "
        "object.",
    )
    scale: tuple[Factor, Factor] | None = Field(
        default=None,
        description="Least and largest factor by which images are resized, before they are cropped "
        "or padded to one size, task.crop_size; [0.1, 2.0] is large-scale jitter.",
    )
    min_visible: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Objects of which a crop keeps less than this fraction of the area are left "
        "out.",
    )
    photometric: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Strength of random brightness, contrast, saturation and hue; 0 leaves them "
        "out.",
    )
    copy_paste: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Fraction of the images that get objects of another image of the batch pasted "
        "into them; needs masks.",
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.scale is not None and self.scale[0] > self.scale[1]:
            raise ValueError("scale = [least, largest]")
        if self.scale is not None and self.sizes:
            raise ValueError("either sizes or scale")
        return self


class DetectionConfig(DenseConfig):
    """Settings of the detection task.

    Images keep their aspect ratio. They are resized to ``image_size`` (the shorter side) in
    training and in evaluation; predictions are in the pixels of the original.
    """

    name: Literal["detection"] = Field(default="detection", description="The task.")
    crop_size: tuple[Side, Side] | None = Field(
        default=None,
        description="Height and width in pixels of random crops in training, which keep at least "
        "one object; smaller images are padded. Leave it out for whole images.",
    )
    detector: str = Field(
        default="faster_rcnn", description="Detector, see `pacavit list detectors`."
    )
    detector_options: dict[str, Any] = Field(
        default={}, description="Keyword arguments of the detector's class."
    )
    augment: ObjectAugmentConfig = Field(
        default_factory=ObjectAugmentConfig, description="Random changes of the training images."
    )
    empty_images: bool = Field(default=False, description="Train on images without objects too.")
    group_by_aspect: bool = Field(
        default=True,
        description="Batches of training hold either wide or tall images, so that less of them is "
        "padding.",
    )

    @model_validator(mode="after")
    def _one_crop(self) -> Self:
        if self.crop_size is not None and self.augment.crop_first is not None:
            raise ValueError("either crop_size or augment.crop_first")
        return self


class InstanceSegmentationConfig(DetectionConfig):
    """Settings of the instance segmentation task: those of detection, with a detector of masks."""

    name: Literal["instance_segmentation"] = Field(  # type: ignore[assignment]
        default="instance_segmentation", description="The task."
    )
    detector: str = Field(
        default="mask_rcnn", description="Detector of masks, see `pacavit list detectors`."
    )
