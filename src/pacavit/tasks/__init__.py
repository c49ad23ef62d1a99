"""The tasks: what is learned from images. Importing this package registers them."""

from pacavit.tasks.base import TASKS, NetworkFactory, Task, TaskConfig, TaskPrediction
from pacavit.tasks.classification import ClassificationTask, ImageClassifier
from pacavit.tasks.detection import DetectionTask, InstanceSegmentationTask
from pacavit.tasks.multilabel import MultilabelTask
from pacavit.tasks.segmentation import SegmentationTask

__all__ = [
    "TASKS",
    "ClassificationTask",
    "DetectionTask",
    "ImageClassifier",
    "InstanceSegmentationTask",
    "MultilabelTask",
    "NetworkFactory",
    "SegmentationTask",
    "Task",
    "TaskConfig",
    "TaskPrediction",
]
