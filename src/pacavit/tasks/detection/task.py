"""Detection and instance segmentation: a detector's losses, and average precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor

from pacavit.data import (
    Batch,
    DataInfo,
    ImageSet,
    ObjectImages,
    Placement,
    Preprocess,
    TargetKind,
)
from pacavit.detectors import DETECTORS, Detected, Detector, Target
from pacavit.errors import RecipeError
from pacavit.tasks.base import TASKS, NetworkFactory, Task
from pacavit.tasks.dense import create_part, input_sizes, predict_by_size
from pacavit.tasks.detection.config import DetectionConfig, InstanceSegmentationConfig
from pacavit.tasks.detection.predictions import Detections, ImageDetections
from pacavit.tasks.detection.preprocess import DetectionPreprocess, check_objects
from pacavit.tasks.detection.restore import restore_objects
from pacavit.tasks.graph import DenseGraph, Engine, dense_graph, run_dense

if TYPE_CHECKING:
    from pacavit.tasks.detection.metrics import DetectionMetrics

__all__ = ["DetectionTask", "InstanceSegmentationTask"]


@TASKS.register("detection")
class DetectionTask(Task):
    """Any number of objects in an image, each with a class and a box.

    Args:
        model: backbone and what finds objects in its maps.
        config: of the task.
        num_classes: K.

    Attributes:
        masks: objects have masks too.
    """

    config_type: ClassVar[type[DetectionConfig]] = DetectionConfig
    main_metric = "box_AP"
    target: ClassVar[TargetKind] = "boxes"
    masks: ClassVar[bool] = False
    model: Detector

    def __init__(self, model: Detector, config: DetectionConfig, num_classes: int) -> None:
        super().__init__()
        self.model, self.config, self.num_classes = model, config, num_classes

    @classmethod
    def build(cls, config: DetectionConfig, info: DataInfo, network: NetworkFactory) -> Self:
        """The task around a backbone, and the detector that the config names."""
        if DETECTORS.get(config.detector).has_masks != cls.masks:
            raise RecipeError(_other_kind(config, masks=cls.masks))
        backbone = network.pyramid(config.stages)
        num_classes = len(info.class_names)
        options = config.detector_options
        detector = create_part(
            DETECTORS, "task.detector_options", config.detector, options, backbone, num_classes
        )
        return cls(detector, config, num_classes)

    @classmethod
    def preprocess(
        cls,
        config: DetectionConfig,
        info: DataInfo,
        *,
        training: bool,
        image_size: int | None = None,
        epochs: int = 1,
    ) -> Preprocess:
        """Joint resizing, cropping and augmentation of images and their objects."""
        return DetectionPreprocess(
            config, info, training=training, image_size=image_size, masks=cls.masks
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the detector, as named scalars; they are means over the images."""
        targets = [
            Target(each["boxes"], each["labels"], each.get("masks")) for each in batch.targets
        ]
        return self.model.losses(batch.images, targets, input_sizes(batch))

    @torch.no_grad()
    def predict(self, batch: Batch) -> list[Detections]:
        """The objects in each image, in the original's pixels.

        Images of different sizes are computed apart, without their padding, so that an image's
        result does not depend on others in the batch.
        """

        def predicted(images: Tensor, placements: Sequence[Placement]) -> list[Detections]:
            found = zip(self.model(images), placements, strict=True)
            return [restore_objects(*each) for each in found]

        return predict_by_size(batch, predicted)

    def prediction(
        self,
        path: Path,
        record: Detections | None,
        error: str | None,
        info: DataInfo,
        top_k: int,
    ) -> ImageDetections:
        """The objects in an image with their classes, scores and boxes."""
        return ImageDetections.of(path, record, error, info)

    def metrics(self) -> DetectionMetrics:
        """New scores for ``num_classes`` classes."""
        # torchmetrics and the evaluator of COCO are needed for evaluation only.
        from pacavit.tasks.detection.metrics import DetectionMetrics

        return DetectionMetrics(self.num_classes, masks=self.masks)

    def graph(self) -> DenseGraph:
        """The logits of the pixels and of the clusters."""
        return dense_graph(self.model, self.config.name)

    def run_by(self, engine: Engine, outputs: Sequence[str]) -> None:
        """Let an engine run backbone and head."""
        run_dense(self.model, engine, outputs)

    def is_finite(self, records: Sequence[Detections]) -> bool:
        """Whether all boxes and scores are finite."""
        return all(
            bool(record.boxes.isfinite().all() and record.scores.isfinite().all())
            for record in records
        )

    def check_data(self, images: ImageSet) -> None:
        """Raise DataError if no image has an object, or if masks are missing."""
        if isinstance(images, ObjectImages):
            check_objects(images, masks=self.masks)

    def check(self, images: Tensor) -> None:
        """Raise RecipeError unless the detector returns objects of the declared kind."""
        found = self.model(images)
        if len(found) != len(images):
            raise RecipeError(
                f"the detector {self.config.detector!r} returns {len(found)} results for "
                f"{len(images)} images"
            )
        size = (images.shape[2], images.shape[3])
        for detected in found:
            fault = _fault(detected, self.num_classes, size, masks=self.masks)
            if fault is not None:
                raise RecipeError(f"the detector {self.config.detector!r} returns {fault}")


@TASKS.register("instance_segmentation")
class InstanceSegmentationTask(DetectionTask):
    """Any number of objects in an image, each with a class, a box and a mask."""

    config_type = InstanceSegmentationConfig
    main_metric = "mask_AP"
    target = "instances"
    masks = True


def _other_kind(config: DetectionConfig, *, masks: bool) -> str:
    able = [name for name in DETECTORS if DETECTORS.get(name).has_masks == masks]
    does = "finds boxes only" if masks else "finds masks, which task detection does not learn"
    other = "detection" if masks else "instance_segmentation"
    return (
        f"task.detector {config.detector!r} {does}; choose among {', '.join(able)}, or "
        f'task.name="{other}"'
    )


def _fault(found: Detected, num_classes: int, size: tuple[int, int], *, masks: bool) -> str | None:
    """What is wrong with a detector's result for an image of a size, if anything is."""
    number = len(found.scores)
    shapes = {"boxes": (found.boxes, (number, 4)), "labels": (found.labels, (number,))}
    if found.box_masks is not None:
        side = found.box_masks.shape[-1]
        shapes["box_masks"] = (found.box_masks, (number, side, side))
    if found.instances is not None:
        shapes["instances"] = (found.instances, size)
    for name, (tensor, expected) in shapes.items():
        if tuple(tensor.shape) != expected:
            return f"{name} of shape {tuple(tensor.shape)} and must return {expected}"
    if number and not 0 <= int(found.labels.min()) <= int(found.labels.max()) < num_classes:
        return f"classes outside of 0..{num_classes - 1}"
    if not bool(((found.scores >= 0) & (found.scores <= 1)).all()):
        return "scores outside of 0..1"
    if bool((found.scores.diff() > 0).any()):
        return "objects that are not in falling order of their scores"
    if masks and found.box_masks is None and found.instances is None:
        return "no masks"
    return None
