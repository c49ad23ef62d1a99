"""Semantic segmentation: one class per pixel."""

from typing import TYPE_CHECKING

from pacavit.tasks.segmentation.config import SegmentationConfig
from pacavit.tasks.segmentation.predictions import ImageSegmentation, Segmentation, class_areas
from pacavit.tasks.segmentation.preprocess import SegmentationPreprocess
from pacavit.tasks.segmentation.segmenter import Segmenter
from pacavit.tasks.segmentation.task import SegmentationTask
from pacavit.utils.lazy import lazy_names

if TYPE_CHECKING:
    from pacavit.tasks.segmentation.metrics import SegmentationMetrics
else:
    __getattr__, __dir__ = lazy_names(
        __name__, {"pacavit.tasks.segmentation.metrics": ("SegmentationMetrics",)}
    )

__all__ = [
    "ImageSegmentation",
    "Segmentation",
    "SegmentationConfig",
    "SegmentationMetrics",
    "SegmentationPreprocess",
    "SegmentationTask",
    "Segmenter",
    "class_areas",
]
