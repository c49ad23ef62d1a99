"""Image classification: one class per image."""

from typing import TYPE_CHECKING

from pacavit.tasks.classification.calibration import (
    Calibration,
    fit_temperature,
    measure_calibration,
)
from pacavit.tasks.classification.classifier import (
    ClassProbability,
    Distiller,
    ImageClassifier,
    Prediction,
    Predictions,
    mean_predictions,
    top_classes,
)
from pacavit.tasks.classification.config import ClassificationConfig
from pacavit.tasks.classification.predictions import ImagePrediction
from pacavit.tasks.classification.preprocess import ClassificationPreprocess
from pacavit.tasks.classification.task import ClassificationTask
from pacavit.tasks.classification.test_time import TEST_TIME_VIEWS
from pacavit.utils.lazy import lazy_names

if TYPE_CHECKING:
    from pacavit.tasks.classification.metrics import ClassificationMetrics
else:
    __getattr__, __dir__ = lazy_names(
        __name__, {"pacavit.tasks.classification.metrics": ("ClassificationMetrics",)}
    )

__all__ = [
    "TEST_TIME_VIEWS",
    "Calibration",
    "ClassProbability",
    "ClassificationConfig",
    "ClassificationMetrics",
    "ClassificationPreprocess",
    "ClassificationTask",
    "Distiller",
    "ImageClassifier",
    "ImagePrediction",
    "Prediction",
    "Predictions",
    "fit_temperature",
    "mean_predictions",
    "measure_calibration",
    "top_classes",
]
