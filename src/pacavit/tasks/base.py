"""The interface of tasks: network, preprocessing, losses, predictions and metrics."""

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
from pacavit.errors import PacavitError, RecipeError
from pacavit.models import Pyramid
from pacavit.tasks.graph import Engine, Graph
from pacavit.utils.registry import Registry
from pacavit.utils.text import shown

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

__all__ = ["TASKS", "NetworkFactory", "RecordPrediction", "Task", "TaskConfig", "TaskPrediction"]


class TaskConfig(BaseModel):
    """The ``[task]`` section of a recipe: fields of every task; subclasses add their own."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    name: str = Field(description="Registered task.")
    image_size: int | None = Field(
        default=None,
        gt=0,
        description="Height and width in pixels of the network's input; leave it out for the size "
        "of the stored images.",
    )

    def input_size(self, stored: tuple[int, int], image_size: int | None = None) -> tuple[int, int]:
        """(height, width) in pixels of the network's input in training.

        Args:
            stored: (height, width) of the stored images.
            image_size: replaces the config's own, for training that changes it between epochs.
        """
        size = image_size or self.image_size
        return stored if size is None else (size, size)


class NetworkFactory(Protocol):
    """Builds the network that the ``[model]`` section of a recipe describes."""

    def __call__(self, *, num_classes: int) -> nn.Module:
        """The timm model with a head of ``num_classes`` outputs, randomly initialized."""

    def pyramid(self, stages: Sequence[int] | None = None) -> Pyramid:
        """The timm model without its classifier, as maps of several resolutions.

        Args:
            stages: indices of the maps, in ascending order; None: all.

        Raises:
            RecipeError: the model has no maps, or no such map.
        """


class TaskPrediction(Protocol):
    """The prediction for one image; rich can print it."""

    @property
    def path(self) -> Path:
        """The image file, or a name with the position of the image."""

    @property
    def error(self) -> str | None:
        """Why the image could not be read, in one line; None if it could."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data with ``path`` and ``error``, ready for JSON."""

    def __rich__(self) -> RenderableType:
        """What is printed below the path."""


@dataclass(frozen=True)
class RecordPrediction:
    """The prediction of a task that defines no class of its own for it."""

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
    """A network with its losses, predictions and metrics.

    The forward pass of a task is a training step, so data-parallel wrappers wrap the task.

    Attributes:
        model: the network; holds all weights of the task.
        config: of the task, a ``config_type``.
        config_type: class of the ``[task]`` section of a recipe.
        main_metric: name of the score by which runs are compared, higher is better.
        target: the kind of target that the task learns from; data sets declare theirs.
        temperature: divides logits before they become probabilities, in tasks that calibrate; 1
            unless one was fitted on validation images.
    """

    model: nn.Module
    config: Any
    config_type: ClassVar[type[TaskConfig]]
    main_metric: ClassVar[str]
    target: ClassVar[TargetKind]
    temperature: float = 1.0

    @classmethod
    @abstractmethod
    def build(cls, config: Any, info: DataInfo, network: NetworkFactory) -> Self:
        """The task for a data set, around a network that it asks the factory for.

        Args:
            config: of the task, a ``config_type``.
            info: of the data to learn from.
            network: builds the network with the head that the task asks for.
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
            image_size: replaces the config's own, for training that changes it between epochs.
            epochs: number of epochs of the run, for augmentation that ends earlier.

        Raises:
            RecipeError: the images are too small for an augmentation.
        """

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses, each a mean over ``loss_weight``; their sum is minimized."""

    def loss_weight(self, batch: Batch) -> Tensor:
        """The number of items that the losses of a batch are means over, as a scalar tensor.

        If a batch is split into chunks or over several processes, their losses are combined with
        these weights, so that the step equals that of the whole batch. A task whose losses are
        means over pixels or boxes returns the number of these; the default is that of images.
        """
        return torch.tensor(float(len(batch)), dtype=torch.float64)

    def set_class_weights(self, weights: Tensor) -> None:
        """Weigh the classes in the losses of training.

        Args:
            weights: (classes,) float32.

        Raises:
            RecipeError: the task does not implement it, as the default.
        """
        raise RecipeError(
            f"the task {self.config.name!r} does not weigh classes; leave train.class_weights out"
        )

    @abstractmethod
    def predict(self, batch: Batch) -> Sequence[Any]:
        """One record per image, without gradients; positions are in pixels of the original."""

    def prediction(
        self, path: Path, record: Any, error: str | None, info: DataInfo, top_k: int
    ) -> TaskPrediction:
        """The record that ``pacavit.predict`` returns for an image.

        Args:
            path: of the image, or a name with its position.
            record: the result of ``predict`` for it; None if there was an error.
            error: why the image could not be read, in one line; None if it could.
            info: of the data that the model was trained on.
            top_k: number of classes to list, for tasks that list classes.
        """
        return RecordPrediction(path, record, error)

    @property
    def calibrates(self) -> bool:
        """Whether a temperature is fitted after training, and becomes the task's ``temperature``.

        Predictions of such a task have ``logits`` (B, classes), and its targets are labels (B,).
        """
        return False

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """New metrics; their ``update`` takes the result of ``predict`` and the batch's targets."""

    def summarize(self, results: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The results that an evaluation keeps of the computed metrics, by name; by default all.

        Scalars are scores; (classes,) tensors whose names end in ``_per_class`` are columns of
        the table of classes, in this order, and ``support_per_class`` is the number of items that
        they were measured on; all others are arrays.
        """
        return dict(results)

    def graph(self) -> Graph:
        """The part of the network that other engines can run, see ``pacavit export``.

        Raises:
            PacavitError: the task or its network has none, as the default.
        """
        raise PacavitError(f"models of the task {self.config.name!r} cannot be exported")

    def run_by(self, engine: Engine, outputs: Sequence[str]) -> None:
        """Let an engine run what ``graph`` describes.

        Args:
            engine: of the graph.
            outputs: names of its tensors.

        Raises:
            PacavitError: the task has no graph, as the default.
        """
        raise PacavitError(f"exported models of the task {self.config.name!r} cannot be used")

    def is_finite(self, records: Sequence[Any]) -> bool:
        """Whether all numbers in the records of ``predict`` are finite."""
        return True

    def check_data(self, images: ImageSet) -> None:
        """Raise DataError if the targets of a split do not fit the task."""

    def check(self, images: Tensor) -> None:
        """Try the network on (B, 3, height, width) images before a run starts.

        Subclasses check the network's output, and raise RecipeError if it does not fit the task.
        """
        self.predict(Batch.unlabeled(images))


TASKS: Registry[Task] = Registry("task")
