"""Image classification."""

from pacavit.tasks.classification.config import ClassificationConfig
from pacavit.tasks.classification.task import (
    ClassificationMetrics,
    ClassificationTask,
    Prediction,
)

__all__ = ["ClassificationConfig", "ClassificationMetrics", "ClassificationTask", "Prediction"]
