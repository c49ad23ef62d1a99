"""What can be learned; importing this package registers the tasks."""

from pacavit.tasks.base import TASKS, NetworkFactory, Task, TaskConfig, TaskPrediction
from pacavit.tasks.classification import ClassificationTask, ImageClassifier
from pacavit.tasks.multilabel import MultilabelTask

__all__ = [
    "TASKS",
    "ClassificationTask",
    "ImageClassifier",
    "MultilabelTask",
    "NetworkFactory",
    "Task",
    "TaskConfig",
    "TaskPrediction",
]
