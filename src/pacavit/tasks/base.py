"""What a task is to the engine: losses for a batch, predictions for images, and its metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn
from torchmetrics import MetricCollection

from pacavit._registry import Registry

__all__ = ["TASKS", "Prediction", "Task"]


class Prediction(NamedTuple):
    """What a classifier says of B images.

    Attributes:
        logits: (B, classes).
        probabilities: (B, classes), rows sum to 1.
    """

    logits: Tensor
    probabilities: Tensor


class Task(nn.Module, ABC):
    """A model with its losses. Data-parallel wrappers wrap the task: a training step IS forward.

    Attributes:
        model: the network; holds all weights of the task.
        main_metric: key of the one metric that sums up a run, larger is better.
        train_transform: (task config, data info, image size) -> what a Loader applies to a batch
            of training images.
        eval_transform: (data info, image size) -> what it applies when measuring.
    """

    model: nn.Module
    main_metric: ClassVar[str]
    train_transform: ClassVar[Callable[..., Any]]
    eval_transform: ClassVar[Callable[..., Any]]

    @abstractmethod
    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Named scalar losses; the engine back-propagates their sum."""

    @abstractmethod
    def predict(self, images: Tensor) -> Prediction:
        """(B, 3, height, width) normalised images -> a prediction for each, without gradients."""

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Fresh metrics; the engine updates them with (prediction, labels)."""


TASKS: Registry[Task] = Registry("task")
