"""What can be learned; importing this package registers the tasks."""

from pacavit.tasks.base import TASKS, NetworkFactory, Task, TaskConfig
from pacavit.tasks.classification import ClassificationTask, ImageClassifier

__all__ = [
    "TASKS",
    "ClassificationTask",
    "ImageClassifier",
    "NetworkFactory",
    "Task",
    "TaskConfig",
]
