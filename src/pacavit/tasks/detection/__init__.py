"""Detection and instance segmentation."""

from pacavit.tasks.detection.config import (
    DetectionConfig,
    InstanceSegmentationConfig,
    ObjectAugmentConfig,
)
from pacavit.tasks.detection.predictions import Detections

__all__ = ["DetectionConfig", "Detections", "InstanceSegmentationConfig", "ObjectAugmentConfig"]
