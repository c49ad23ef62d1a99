"""Multi-label classification: average precision, thresholds, labels of images."""

from pacavit.report.tasks.multilabel.predictions import LabelsPrediction
from pacavit.report.tasks.multilabel.report import MultilabelReport

__all__ = ["LabelsPrediction", "MultilabelReport"]
