"""Reports of the results of tasks, one package per task; importing this registers them."""

from pacavit.report.tasks.base import (
    REPORTS,
    StoredEvaluation,
    TaskReport,
    report_of,
)
from pacavit.report.tasks.classification import ClassificationReport
from pacavit.report.tasks.detection import DetectionReport, InstanceSegmentationReport
from pacavit.report.tasks.multilabel import MultilabelReport
from pacavit.report.tasks.segmentation import SegmentationReport

__all__ = [
    "REPORTS",
    "ClassificationReport",
    "DetectionReport",
    "InstanceSegmentationReport",
    "MultilabelReport",
    "SegmentationReport",
    "StoredEvaluation",
    "TaskReport",
    "report_of",
]
