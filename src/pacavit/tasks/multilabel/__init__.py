"""Multi-label image classification: any number of classes an image."""

from pacavit.tasks.multilabel.config import MultilabelConfig
from pacavit.tasks.multilabel.metrics import MultilabelMetrics
from pacavit.tasks.multilabel.predictions import LabelsPrediction
from pacavit.tasks.multilabel.task import MultilabelTask

__all__ = ["LabelsPrediction", "MultilabelConfig", "MultilabelMetrics", "MultilabelTask"]
