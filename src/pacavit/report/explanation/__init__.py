"""Pages with explanations of predictions. Importing this package registers their kinds."""

from pacavit.report.explanation import classification, segmentation

__all__ = ["classification", "segmentation"]
