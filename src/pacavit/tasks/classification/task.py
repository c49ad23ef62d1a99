"""Image classification: label-smoothed cross-entropy and the usual scores."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from pacavit.data import Batch, DataInfo
from pacavit.errors import RecipeError
from pacavit.tasks.base import TASKS, Task
from pacavit.tasks.classification.config import ClassificationConfig
from pacavit.tasks.classification.framing import CentreCrop, RandomCrop
from pacavit.tasks.classification.mixing import Mix
from pacavit.tasks.classification.transforms import EvalTransform, TrainTransform

__all__ = ["ClassificationMetrics", "ClassificationTask", "LogLoss", "Prediction"]


class Prediction(NamedTuple):
    """What a classifier says of B images.

    Attributes:
        logits: (B, classes).
        probabilities: (B, classes), rows sum to 1.
    """

    logits: Tensor
    probabilities: Tensor


class LogLoss(Metric):
    """Mean negative log-probability of the true class, without label smoothing."""

    full_state_update = False
    higher_is_better = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add (B, classes) probabilities and (B,) labels."""
        chosen = probabilities.gather(1, labels[:, None]).clamp_min(1e-12)
        self.total -= chosen.double().log().sum()
        self.count += len(labels)

    def compute(self) -> Tensor:
        """The mean so far."""
        return self.total / self.count


class CalibrationError(MulticlassCalibrationError):
    """torchmetrics' score, which has a bin of its own for a confidence of exactly 1."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add (B, classes) probabilities and (B,) labels; 1 counts to the last bin."""
        super().update(preds.clamp_max(1 - torch.finfo(preds.dtype).eps), target)


class ClassificationMetrics(MetricCollection):
    """Accuracy, loss, calibration, confusion, and precision, recall and F1 of all kinds.

    ``calibration_error`` is the expected calibration error of the likeliest class, in 15 bins of
    equal width (Guo et al., "On calibration of modern neural networks", ICML 2017).

    Args:
        num_classes: K; ``confusion`` is (K, K) with true classes as rows, the ``_per_class``
            scores are (K,), all others scalars. With five classes or fewer ``top5_accuracy``
            would always be 1 and is left out.
    """

    def __init__(self, num_classes: int) -> None:
        metrics: dict[str, Metric] = {
            "accuracy": MulticlassAccuracy(num_classes, average="micro"),
            "loss": LogLoss(),
            "calibration_error": CalibrationError(num_classes, n_bins=15),
            "confusion": MulticlassConfusionMatrix(num_classes),
        }
        if num_classes > 5:
            metrics["top5_accuracy"] = MulticlassAccuracy(num_classes, average="micro", top_k=5)
        kinds = {
            "precision": MulticlassPrecision,
            "recall": MulticlassRecall,
            "f1": MulticlassF1Score,
        }
        for average, suffix in (("macro", "macro"), ("weighted", "weighted"), (None, "per_class")):
            for name, kind in kinds.items():
                metrics[f"{name}_{suffix}"] = kind(num_classes, average=cast(Any, average))
        # torchmetrics takes a dict of metrics or of collections and declares only the union.
        super().__init__(cast(Any, metrics))

    def update(self, prediction: Prediction, labels: Tensor) -> None:  # type: ignore[override]
        """Add what a task predicted for B images, and their (B,) labels."""
        super().update(prediction.probabilities, labels)


@TASKS.register("classification")
class ClassificationTask(Task):
    """A classifier with its loss.

    Args:
        model: (B, 3, height, width) -> (B, num_classes) logits.
        config: label smoothing, image size, augmentation, mixing.
        num_classes: K.
    """

    config_type = ClassificationConfig
    main_metric: ClassVar[str] = "accuracy"
    train_transform = TrainTransform
    eval_transform = EvalTransform

    def __init__(self, model: nn.Module, config: ClassificationConfig, num_classes: int) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.num_classes = num_classes

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Label-smoothed cross-entropy of a batch, mixed or not, as a scalar named "loss"."""
        logits = self.model(batch.images)
        # Under autocast the logits are bf16; the loss is taken in fp32.
        loss = F.cross_entropy(
            logits.float(), batch.labels, label_smoothing=self.config.label_smoothing
        )
        return {"loss": loss}

    @classmethod
    def train_batch_transform(
        cls, config: ClassificationConfig, num_classes: int, epochs: int
    ) -> Mix | None:
        """Mixup and cutmix, if the config asks for any."""
        mixes = config.mix.mixup or config.mix.cutmix
        return Mix(config.mix, num_classes, epochs) if mixes else None

    @classmethod
    def train_framing(
        cls, config: ClassificationConfig, info: DataInfo, image_size: int | None = None
    ) -> RandomCrop | None:
        """The random crop, if the config asks for one."""
        size = image_size or config.image_size or min(info.image_size)
        return RandomCrop(config.crop, size) if config.crop else None

    @classmethod
    def eval_framing(cls, config: ClassificationConfig, info: DataInfo) -> CentreCrop | None:
        """The centre crop, if the config asks for one."""
        size = config.image_size or min(info.image_size)
        return CentreCrop(config.crop, size) if config.crop else None

    @torch.no_grad()
    def predict(self, images: Tensor) -> Prediction:
        """(B, 3, height, width) normalised images -> fp32 logits and probabilities (B, classes)."""
        logits = self.model(images).float()
        return Prediction(logits, logits.softmax(-1))

    def metrics(self) -> ClassificationMetrics:
        """Fresh scores for ``num_classes`` classes."""
        return ClassificationMetrics(self.num_classes)

    def check(self, images: Tensor) -> None:
        """Raise RecipeError unless (B, 3, height, width) images get (B, num_classes) logits."""
        found, expected = tuple(self.predict(images).logits.shape), (len(images), self.num_classes)
        if found != expected:
            raise RecipeError(
                f"the model answers {len(images)} images with a tensor of shape {found} "
                f"and must answer with logits of shape {expected}"
            )
