"""What a task is to the engine: losses for a batch, predictions for images, and its metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

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
        model: the network.
    """

    model: nn.Module

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
