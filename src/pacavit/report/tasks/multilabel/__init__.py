"""Multi-label classification: average precision, thresholds."""

from pacavit.report.tasks.multilabel.report import MultilabelReport

__all__ = ["MultilabelReport"]
