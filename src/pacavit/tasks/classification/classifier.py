"""Base class of tasks whose network returns one logit per class for each image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, overload

import torch
from torch import Tensor, nn

from pacavit.data import Batch, DataInfo, Preprocess
from pacavit.errors import RecipeError
from pacavit.tasks.base import NetworkFactory, Task
from pacavit.tasks.classification.preprocess import ClassificationPreprocess
from pacavit.tasks.classification.test_time import TEST_TIME_VIEWS
from pacavit.tasks.dense import input_sizes
from pacavit.tasks.graph import ClassifierGraph, Engine, EngineClassifier

__all__ = [
    "ClassProbability",
    "Distiller",
    "ImageClassifier",
    "Prediction",
    "Predictions",
    "mean_predictions",
    "top_classes",
    "weighted_mean",
]

_TINY = 1e-12  # instead of the weight of a batch whose images all have weight 0


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


def mean_predictions(predictions: Sequence[Predictions]) -> Predictions:
    """Means of logits and of probabilities, of several predictions of the same images."""
    return Predictions(
        torch.stack([each.logits for each in predictions]).mean(0),
        torch.stack([each.probabilities for each in predictions]).mean(0),
    )


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


@dataclass(frozen=True)
class Distiller:
    """What a training imitates beside its labels.

    Attributes:
        teacher: (B, 3, height, width) images, as the task's network gets them -> (B, classes)
            logits.
        hard: imitate the teacher's decisions, not its probabilities.
        weight: fraction of the loss that imitates, 0..1.
        temperature: divides the logits of both before soft probabilities are compared.
    """

    teacher: Callable[[Tensor], Tensor]
    hard: bool = False
    weight: float = 0.5
    temperature: float = 1.0


def weighted_mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """The mean of losses (B,), weighted by (B,) unless that is None."""
    if weights is None:
        return losses.mean()
    return (weights * losses).sum() / weights.sum().clamp_min(_TINY)


class ImageClassifier(Task):
    """A task whose network maps images (B, 3, height, width) to (B, classes) logits.

    Args:
        model: the network.
        config: of the task.
        num_classes: K.

    Attributes:
        class_weights: (classes,) float32, of the classes in the loss; None if all count the same.
        distiller: what training imitates; None: nothing. No part of the task's state.
        test_time_augmentation: name in ``TEST_TIME_VIEWS``; None predicts each image once.
    """

    class_weights: Tensor | None
    distiller: Distiller | None = None
    test_time_augmentation: str | None = None

    def __init__(self, model: nn.Module, config: Any, num_classes: int) -> None:
        super().__init__()
        self.model, self.config, self.num_classes = model, config, num_classes
        self.register_buffer("class_weights", None, persistent=False)

    def imitation(self, logits: Tensor, teachers: Tensor, distiller: Distiller) -> Tensor:
        """Losses (B,) between logits (B, classes) and those of a teacher.

        Raises:
            RecipeError: the task does not define them.
        """
        raise RecipeError(f"train.teacher: {type(self).__name__} cannot be distilled")

    def image_weights(self, targets: Tensor) -> Tensor | None:
        """Weights (B,) of images in the losses, by their targets; None if all count the same."""
        return None

    def with_distillation(self, loss: Tensor, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The named losses of a batch: that of the labels, and that of imitating a teacher.

        Args:
            loss: of the labels, a scalar.
            logits: (B, classes) of the network, fp32.
            batch: as the network got it.
        """
        distiller = self.distiller
        if distiller is None:
            return {"loss": loss}
        imitation = self.imitation(logits, distiller.teacher(batch.images), distiller)
        imitation = weighted_mean(imitation, self.image_weights(batch.targets))
        return {
            "labels": (1 - distiller.weight) * loss,
            "distillation": distiller.weight * imitation,
        }

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

    def set_class_weights(self, weights: Tensor) -> None:
        """Weigh the classes in the loss: (classes,) float32."""
        parameter = next(self.model.parameters(), weights)
        self.class_weights = weights.to(parameter.device, torch.float32)

    @staticmethod
    @abstractmethod
    def probabilities(logits: Tensor) -> Tensor:
        """(..., classes) logits -> the probabilities of the classes, of the same shape."""

    @torch.no_grad()
    def predict(self, batch: Batch) -> Predictions:
        """Logits of B images, and their probabilities at the task's temperature, in fp32.

        With test-time augmentation both are means over the views.
        """
        if len({*input_sizes(batch)}) > 1:
            return self._predict_apart(batch)
        if self.test_time_augmentation is None:
            return self._predict(batch.images)
        views = TEST_TIME_VIEWS[self.test_time_augmentation](batch.images)
        return mean_predictions([self._predict(view) for view in views])

    def _predict_apart(self, batch: Batch) -> Predictions:
        """Images of different sizes, which networks that resize them get one by one."""
        found = []
        for row, (height, width) in enumerate(input_sizes(batch)):
            found.append(self.predict(Batch.unlabeled(batch.images[row, None, :, :height, :width])))
        return Predictions(
            torch.cat([each.logits for each in found]),
            torch.cat([each.probabilities for each in found]),
        )

    def _predict(self, images: Tensor) -> Predictions:
        logits = self.model(images).float()
        return Predictions(logits, self.probabilities(logits / self.temperature))

    def graph(self) -> ClassifierGraph:
        """The network: images -> "logits" (B, classes)."""
        return ClassifierGraph(self.model)

    def run_by(self, engine: Engine, outputs: Sequence[str]) -> None:
        """Let an engine run the network."""
        self.model = EngineClassifier(engine)

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
