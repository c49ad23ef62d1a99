"""What a task is to the engine: its network, losses for a batch, predictions, and its metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from rich.console import RenderableType
from rich.markup import escape
from torch import Tensor, nn

from pacavit.data import Batch, DataInfo, ImageSet, Preprocess, TargetKind
from pacavit.utils.registry import Registry
from pacavit.utils.text import shown

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

__all__ = ["TASKS", "NetworkFactory", "RecordPrediction", "Task", "TaskConfig", "TaskPrediction"]


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


class NetworkFactory(Protocol):
    """Builds the network that the ``[model]`` section of a recipe describes."""

    def __call__(self, *, num_classes: int) -> nn.Module:
        """The timm model with a head of ``num_classes`` outputs, randomly initialized."""


class TaskPrediction(Protocol):
    """What was predicted for one image; rich can print it."""

    @property
    def path(self) -> Path:
        """The image file, or a name with its position."""

    @property
    def error(self) -> str | None:
        """Why the image could not be read, in one line; None if it could."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data with ``path`` and ``error``, ready for JSON."""

    def __rich__(self) -> RenderableType:
        """What the console shows below the path."""


@dataclass(frozen=True)
class RecordPrediction:
    """The record of a task that has no report of its own."""

    path: Path
    record: Any
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Path, the record as text (None if there was an error), and error."""
        prediction = None if self.record is None else str(self.record)
        return {"path": shown(self.path), "prediction": prediction, "error": self.error}

    def __rich__(self) -> RenderableType:
        return escape(str(self.record))


class Task(nn.Module, ABC):
    """A network with its losses. Data-parallel wrappers wrap the task: a training step IS forward.

    Attributes:
        model: the network; holds all weights of the task.
        config: of the task, a ``config_type``.
        config_type: what a recipe may contain in its ``[task]`` section.
        main_metric: name of the one score that sums up a run, larger is better.
        target: the kind of target that the task learns from; data sets declare theirs.
    """

    model: nn.Module
    config: Any
    config_type: ClassVar[type[TaskConfig]]
    main_metric: ClassVar[str]
    target: ClassVar[TargetKind]

    @classmethod
    @abstractmethod
    def build(cls, config: Any, info: DataInfo, network: NetworkFactory) -> Self:
        """The task for a data set, around a network that it asks the factory for.

        Args:
            config: of the task, a ``config_type``.
            info: of the data to learn from.
            network: builds the network; a task chooses its head.
        """

    @classmethod
    @abstractmethod
    def preprocess(
        cls,
        config: Any,
        info: DataInfo,
        *,
        training: bool,
        image_size: int | None = None,
        epochs: int = 1,
    ) -> Preprocess:
        """The path from stored images to this task's network.

        Args:
            config: of the task.
            info: of the data that the model is, or was, trained on.
            training: with augmentation.
            image_size: replaces the config's own, for training that changes it on the way.
            epochs: of the run, for augmentation that ends before it does.

        Raises:
            RecipeError: the images are too small for an augmentation.
        """

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses, each a mean over ``loss_weight``; their sum is minimized."""

    def loss_weight(self, batch: Batch) -> Tensor:
        """What the losses of a batch are averaged over, as a scalar: by default its images.

        Losses of the chunks of a batch, computed one after the other or by several processes, are
        combined with these weights, so that the step equals that of the whole batch. A task whose
        losses are means over pixels or boxes returns their number.
        """
        return torch.tensor(float(len(batch)), dtype=torch.float64)

    @abstractmethod
    def predict(self, batch: Batch) -> Sequence[Any]:
        """One record an image, without gradients; positions are in pixels of the original."""

    def prediction(
        self, path: Path, record: Any, error: str | None, info: DataInfo, top_k: int
    ) -> TaskPrediction:
        """What ``pacavit.predict`` returns for an image.

        Args:
            path: of the image, or a name with its position.
            record: what ``predict`` returned for it; None if there was an error.
            error: why the image could not be read, in one line; None if it could.
            info: of the data that the model was trained on.
            top_k: classes to name, for tasks that name some.
        """
        return RecordPrediction(path, record, error)

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Fresh metrics; updated with (what ``predict`` returned, the batch's targets)."""

    def summarize(self, results: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What an evaluation keeps of the computed metrics, by name; by default all.

        Scalars are scores; (classes,) tensors whose names end in ``_per_class`` are columns of
        the table of classes, in this order, and ``support_per_class`` counts what they were
        measured on; all others are arrays.
        """
        return dict(results)

    def is_finite(self, records: Sequence[Any]) -> bool:
        """Whether what ``predict`` returned holds finite numbers only."""
        return True

    def check_data(self, images: ImageSet) -> None:
        """Raise DataError if the targets of a split do not fit the task."""

    def check(self, images: Tensor) -> None:
        """Try the network on (B, 3, height, width) images before a run starts.

        A task extends this by what its network's output must look like, and raises RecipeError.
        """
        self.predict(Batch.unlabeled(images))


TASKS: Registry[Task] = Registry("task")
