"""The report of semantic segmentation."""

from pacavit.report.tasks.segmentation.report import SegmentationReport

__all__ = ["SegmentationReport"]
