"""Detection and instance segmentation: any number of objects in an image."""

from typing import TYPE_CHECKING

from pacavit.tasks.detection.config import (
    DetectionConfig,
    InstanceSegmentationConfig,
    ObjectAugmentConfig,
)
from pacavit.tasks.detection.predictions import Detections, FoundObject, ImageDetections
from pacavit.tasks.detection.preprocess import DetectionPreprocess
from pacavit.tasks.detection.task import DetectionTask, InstanceSegmentationTask
from pacavit.utils.lazy import lazy_names

if TYPE_CHECKING:
    from pacavit.tasks.detection.metrics import DetectionMetrics
else:
    __getattr__, __dir__ = lazy_names(
        __name__, {"pacavit.tasks.detection.metrics": ("DetectionMetrics",)}
    )

__all__ = [
    "DetectionConfig",
    "DetectionMetrics",
    "DetectionPreprocess",
    "DetectionTask",
    "Detections",
    "FoundObject",
    "ImageDetections",
    "InstanceSegmentationConfig",
    "InstanceSegmentationTask",
    "ObjectAugmentConfig",
]
