"""Image classification."""

from pacavit.tasks.classification.config import ClassificationConfig
from pacavit.tasks.classification.task import ClassificationMetrics, ClassificationTask

__all__ = ["ClassificationConfig", "ClassificationMetrics", "ClassificationTask"]
