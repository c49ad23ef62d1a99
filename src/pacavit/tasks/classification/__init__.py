"""Image classification: one class an image."""

from pacavit.tasks.classification.classifier import (
    ClassProbability,
    ImageClassifier,
    Prediction,
    Predictions,
    top_classes,
)
from pacavit.tasks.classification.config import ClassificationConfig
from pacavit.tasks.classification.metrics import ClassificationMetrics
from pacavit.tasks.classification.predictions import ImagePrediction
from pacavit.tasks.classification.preprocess import ClassificationPreprocess
from pacavit.tasks.classification.task import ClassificationTask

__all__ = [
    "ClassProbability",
    "ClassificationConfig",
    "ClassificationMetrics",
    "ClassificationPreprocess",
    "ClassificationTask",
    "ImageClassifier",
    "ImagePrediction",
    "Prediction",
    "Predictions",
    "top_classes",
]
