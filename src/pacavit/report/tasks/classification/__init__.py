"""Classification: confusion matrix, example images, probabilities."""

from pacavit.report.tasks.classification.predictions import ImagePrediction
from pacavit.report.tasks.classification.report import ClassificationReport

__all__ = ["ClassificationReport", "ImagePrediction"]
