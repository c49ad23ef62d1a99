"""Classification: confusion matrix, example images, tables."""

from pacavit.report.tasks.classification.report import ClassificationReport

__all__ = ["ClassificationReport"]
