"""What can be learned; importing this package registers the tasks."""

from pacavit.tasks.base import TASKS, Task, TaskConfig
from pacavit.tasks.classification import ClassificationTask

__all__ = ["TASKS", "ClassificationTask", "Task", "TaskConfig"]
