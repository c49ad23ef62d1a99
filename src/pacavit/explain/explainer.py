"""The interface of explainers, one per task, and what they have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from pacavit.data import Batch
from pacavit.data.base import DataInfo
from pacavit.data.placement import Placement
from pacavit.engine.predictor import Predictor
from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import DataError, UnknownNameError
from pacavit.explain.choice import MapChoice, choose_maps
from pacavit.explain.core.geometry import samplings
from pacavit.explain.methods.base import holds_pacavit
from pacavit.utils.registry import Registry
from pacavit.utils.text import shown

__all__ = [
    "EXPLAINERS",
    "ExplainOptions",
    "Explainer",
    "Explanation",
    "FailedImage",
    "find_class",
]


class Explanation(Protocol):
    """The explanation of the prediction for an image; its type depends on the task.

    Attributes:
        kind: name of the explainer, and of the pages that show it.
        path: the image file; for an image of a split, a name with its position.
        placement: where the image lies in the network's input.
        choice: the default map, what is shown beside it, and what was measured about them.
    """

    kind: ClassVar[str]

    @property
    def path(self) -> Path: ...  # noqa: D102 (see the class)

    @property
    def placement(self) -> Placement: ...  # noqa: D102

    @property
    def choice(self) -> MapChoice: ...  # noqa: D102


@dataclass(frozen=True)
class FailedImage:
    """An image that could not be explained, with the reason in one line."""

    path: Path
    error: str


@dataclass(frozen=True)
class ExplainOptions:
    """What a user asks for.

    Attributes:
        label: index of the class to explain; None leaves it to the explainer.
        method: registered name; None is what ``choose_maps`` chooses.
        stage: whose clusters make the map; None is the last stage with clusters.
        measured: a folder of ``pacavit explain-evaluate``, see ``choose_maps``; ignored if there is
            a method.
        region: (x, y) in pixels of the image: explain the region of one class that is connected
            with this pixel, or the object there.
        mask: file with a mask of the size of the image: explain the region where it is not 0.
        box: x1, y1, x2, y2 in pixels of the image: explain why there is an object, or why not.
        most: number of classes or objects that are explained where none is asked for.
    """

    label: int | None = None
    method: str | None = None
    stage: int | None = None
    measured: Path | None = None
    region: tuple[int, int] | None = None
    mask: Path | None = None
    box: tuple[float, float, float, float] | None = None
    most: int = 6

    @property
    def of_map(self) -> dict[str, int]:
        """The options of the method of the first map."""
        return {} if self.stage is None else {"stage": self.stage}


E_co = TypeVar("E_co", bound=Explanation, covariant=True)


class Explainer(ABC, Generic[E_co]):
    """Explains the predictions of a model for images, one at a time.

    Args:
        model: as loaded by ``load_model``; its task moves to ``device``.
        options: what the user asks for.
        device: where to compute.

    Attributes:
        choice: the methods to show.

    Raises:
        UnknownNameError: there is no such method, or it has no option ``stage``.
        PacavitError: the method cannot explain this model, or an option does not fit the task.
    """

    def __init__(self, model: LoadedModel, options: ExplainOptions, device: torch.device) -> None:
        self.model, self.options, self.device = model, options, device
        self.predictor = Predictor(model, device)
        self.choice = (
            choose_maps(model, options.measured)
            if options.method is None
            else MapChoice((options.method,))
        )

    def __call__(self, image: Tensor, path: Path) -> E_co:
        """Explain an image (3, H, W) uint8.

        Raises:
            DataError: the image is too small, or an option does not fit it.
        """
        _check_size(self.model, image, path)
        return self.explain(image, path, self.predictor.prepare([image]))

    @abstractmethod
    def explain(self, image: Tensor, path: Path, batch: Batch) -> E_co:
        """Explain an image, of which ``batch`` is the network's input."""


EXPLAINERS: Registry[Explainer[Any]] = Registry("explainer")


def _check_size(model: LoadedModel, image: Tensor, path: Path) -> None:
    """Raise DataError for an image (3, H, W) of less than one patch of the model."""
    network = model.task.model
    patch = samplings(network)[0].stride if holds_pacavit(network) else 1
    height, width = image.shape[1:]
    if min(height, width) < patch:
        raise DataError(
            f"{shown(path)} has {width} x {height} pixels, less than one patch of the model "
            f"({patch} x {patch}); use a larger image"
        )


def find_class(name: str | int, info: DataInfo) -> int:
    """The index of a class, given by its name or its index.

    Raises:
        UnknownNameError: there is no class of that name.
        DataError: the index is out of range.
    """
    names = info.class_names
    if isinstance(name, str) and name in names:
        return names.index(name)
    if isinstance(name, str) and not name.removeprefix("-").isdecimal():
        raise UnknownNameError("class", name, names, f"of {info.name}")
    index = int(name)
    if not 0 <= index < len(names):
        raise DataError(
            f"class {index} is out of range: {info.name} has the classes 0 to {len(names) - 1}"
        )
    return index
