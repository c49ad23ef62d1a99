"""Multi-label image classification: any number of classes per image."""

from typing import TYPE_CHECKING

from pacavit.tasks.multilabel.config import MultilabelConfig
from pacavit.tasks.multilabel.predictions import LabelsPrediction
from pacavit.tasks.multilabel.task import MultilabelTask
from pacavit.utils.lazy import lazy_names

if TYPE_CHECKING:
    from pacavit.tasks.multilabel.metrics import MultilabelMetrics
else:
    __getattr__, __dir__ = lazy_names(
        __name__, {"pacavit.tasks.multilabel.metrics": ("MultilabelMetrics",)}
    )

__all__ = ["LabelsPrediction", "MultilabelConfig", "MultilabelMetrics", "MultilabelTask"]
