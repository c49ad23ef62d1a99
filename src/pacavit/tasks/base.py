"""What a task is to the engine: losses for a batch, predictions for images, and its metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torchmetrics import MetricCollection

from pacavit.data import BatchTransform, DataInfo, Framing
from pacavit.utils.registry import Registry

__all__ = ["TASKS", "Task", "TaskConfig"]


class TaskConfig(BaseModel):
    """The ``[task]`` section of a recipe: what every task has; each adds fields of its own."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    name: str = Field(description="Registered task.")
    image_size: int | None = Field(
        default=None,
        gt=0,
        description="Height and width in pixels of what the network sees; leave it out for the "
        "size of the stored images.",
    )


class Task(nn.Module, ABC):
    """A model with its losses. Data-parallel wrappers wrap the task: a training step IS forward.

    Every task is built from a model, its config and the number of classes.

    Attributes:
        model: the network; holds all weights of the task.
        config_type: what a recipe may say of the task.
        main_metric: key of the one metric that sums up a run, larger is better.
        train_transform: (task config, data info, image size) -> what a Loader applies to a batch
            of training images.
        eval_transform: (data info, image size) -> what it applies when measuring.
    """

    model: nn.Module
    config_type: ClassVar[type[TaskConfig]]
    main_metric: ClassVar[str]
    train_transform: ClassVar[Callable[..., Any]]
    eval_transform: ClassVar[Callable[..., Any]]

    @abstractmethod
    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Named scalar losses; the engine back-propagates their sum."""

    @abstractmethod
    def predict(self, images: Tensor) -> Any:
        """(B, 3, height, width) normalised images -> the task's own record, without gradients."""

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Fresh metrics; the engine updates them with (what ``predict`` gave, labels)."""

    @classmethod
    def train_batch_transform(
        cls, config: Any, num_classes: int, epochs: int
    ) -> BatchTransform | None:
        """What a Loader applies to whole batches of training images and labels; None by default.

        Args:
            config: of the task.
            num_classes: K.
            epochs: of the run.
        """
        return None

    @classmethod
    def train_framing(
        cls, config: Any, info: DataInfo, image_size: int | None = None
    ) -> Framing | None:
        """What a Loader applies to each training image before its batch is made; None by default.

        Args:
            config: of the task.
            info: of the data.
            image_size: instead of the config's own, for training that changes it on the way.
        """
        return None

    @classmethod
    def eval_framing(cls, config: Any, info: DataInfo) -> Framing | None:
        """The same when measuring and predicting."""
        return None

    def check(self, images: Tensor) -> None:
        """Try the network on (B, 3, height, width) images before a run starts.

        A task extends this by what its network's answer must look like, and raises RecipeError.
        """
        self.predict(images)


TASKS: Registry[Task] = Registry("task")
