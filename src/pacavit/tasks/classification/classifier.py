"""Base class of tasks whose network returns one logit per class for each image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, overload

import torch
from torch import Tensor, nn

from pacavit.data import Batch, DataInfo, Preprocess
from pacavit.errors import RecipeError
from pacavit.tasks.base import NetworkFactory, Task
from pacavit.tasks.classification.preprocess import ClassificationPreprocess

__all__ = ["ClassProbability", "ImageClassifier", "Prediction", "Predictions", "top_classes"]


class ClassProbability(NamedTuple):
    """A class and its probability, 0..1."""

    name: str
    probability: float


class Prediction(NamedTuple):
    """The scores of one image.

    Attributes:
        logits: (classes,).
        probabilities: (classes,), each 0..1.
    """

    logits: Tensor
    probabilities: Tensor


@dataclass(frozen=True, eq=False)
class Predictions(Sequence[Prediction]):
    """The scores of B images: a sequence of B ``Prediction`` records, kept as two tensors.

    Attributes:
        logits: (B, classes).
        probabilities: (B, classes), each 0..1.
    """

    logits: Tensor
    probabilities: Tensor

    def __len__(self) -> int:
        return len(self.logits)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> Predictions: ...
    def __getitem__(self, index: int | slice) -> Prediction | Predictions:
        kind = Predictions if isinstance(index, slice) else Prediction
        return kind(self.logits[index], self.probabilities[index])

    def __iter__(self) -> Iterator[Prediction]:
        return map(Prediction, self.logits, self.probabilities)


def top_classes(
    probabilities: Tensor, class_names: Sequence[str], k: int
) -> tuple[ClassProbability, ...]:
    """The k most probable classes of an image, most probable first; all if there are fewer.

    Args:
        probabilities: (classes,).
        class_names: one per class.
        k: number of classes.
    """
    values, labels = probabilities.topk(min(k, len(class_names)))
    pairs = zip(labels.tolist(), values.tolist(), strict=True)
    return tuple(ClassProbability(class_names[label], value) for label, value in pairs)


class ImageClassifier(Task):
    """A task whose network maps images (B, 3, height, width) to (B, classes) logits.

    Args:
        model: the network.
        config: of the task.
        num_classes: K.
    """

    def __init__(self, model: nn.Module, config: Any, num_classes: int) -> None:
        super().__init__()
        self.model, self.config, self.num_classes = model, config, num_classes

    @classmethod
    def build(cls, config: Any, info: DataInfo, network: NetworkFactory) -> Self:
        """The task around a network with one output per class."""
        num_classes = len(info.class_names)
        return cls(network(num_classes=num_classes), config, num_classes)

    @classmethod
    def preprocess(
        cls,
        config: Any,
        info: DataInfo,
        *,
        training: bool,
        image_size: int | None = None,
        epochs: int = 1,
    ) -> Preprocess:
        """Crop, augmentation, normalization and mixing, as ``config`` describes them."""
        return ClassificationPreprocess(
            config, info, training=training, image_size=image_size, epochs=epochs
        )

    @staticmethod
    @abstractmethod
    def probabilities(logits: Tensor) -> Tensor:
        """(..., classes) logits -> the probabilities of the classes, of the same shape."""

    @torch.no_grad()
    def predict(self, batch: Batch) -> Predictions:
        """Logits of B images, and their probabilities at the task's temperature, in fp32."""
        logits = self.model(batch.images).float()
        return Predictions(logits, self.probabilities(logits / self.temperature))

    def is_finite(self, records: Predictions) -> bool:  # type: ignore[override]
        """Whether all probabilities are finite."""
        return bool(records.probabilities.isfinite().all())

    def check(self, images: Tensor) -> None:
        """Raise RecipeError unless images (B, 3, height, width) give logits (B, num_classes)."""
        found = tuple(self.predict(Batch.unlabeled(images)).logits.shape)
        expected = (len(images), self.num_classes)
        if found != expected:
            raise RecipeError(
                f"the model returns a tensor of shape {found} for {len(images)} images and must "
                f"return logits of shape {expected}"
            )
