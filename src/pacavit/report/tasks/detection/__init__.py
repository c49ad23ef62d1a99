"""The reports of detection and instance segmentation."""

from pacavit.report.tasks.detection.report import DetectionReport, InstanceSegmentationReport

__all__ = ["DetectionReport", "InstanceSegmentationReport"]
