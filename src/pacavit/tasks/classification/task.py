"""Image classification: label-smoothed cross-entropy and the usual scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from pacavit.data import Batch, DataInfo, ImageSet, LabeledImages
from pacavit.errors import DataError
from pacavit.tasks.base import TASKS
from pacavit.tasks.classification.classifier import (
    Distiller,
    ImageClassifier,
    Prediction,
    top_classes,
    weighted_mean,
)
from pacavit.tasks.classification.config import ClassificationConfig
from pacavit.tasks.classification.predictions import ImagePrediction

if TYPE_CHECKING:
    from pacavit.tasks.classification.metrics import ClassificationMetrics

__all__ = ["ClassificationTask"]


@TASKS.register("classification")
class ClassificationTask(ImageClassifier):
    """One class per image.

    Args:
        model: (B, 3, height, width) -> (B, num_classes) logits.
        config: a ``ClassificationConfig``: label smoothing, image size, augmentation, mixing.
        num_classes: K.
    """

    config_type = ClassificationConfig
    main_metric = "accuracy"
    target = "label"

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Label-smoothed cross-entropy of a batch, mixed or not, as a scalar named "loss".

        With a distiller, it is named "labels", beside "distillation". With class weights, means
        over images are weighted by ``image_weights``.
        """
        # Under autocast the logits are bf16; the loss is computed in fp32.
        logits = self.model(batch.images).float()
        smoothing, weights = self.config.label_smoothing, self.image_weights(batch.targets)
        if weights is None:
            loss = F.cross_entropy(logits, batch.targets, label_smoothing=smoothing)
        else:
            losses = F.cross_entropy(
                logits, batch.targets, label_smoothing=smoothing, reduction="none"
            )
            loss = weighted_mean(losses, weights)
        return self.with_distillation(loss, logits, batch)

    def imitation(self, logits: Tensor, teachers: Tensor, distiller: Distiller) -> Tensor:
        """Cross-entropies to the teacher's top classes, or divergences from its probabilities.

        Divergences are multiplied by the squared temperature, so that gradients keep their size.
        """
        if distiller.hard:
            return F.cross_entropy(logits, teachers.argmax(1), reduction="none")
        own = (logits / distiller.temperature).log_softmax(1)
        wanted = (teachers / distiller.temperature).log_softmax(1)
        divergences = F.kl_div(own, wanted, reduction="none", log_target=True).sum(1)
        return divergences * distiller.temperature**2

    def loss_weight(self, batch: Batch) -> Tensor:
        """The number of images, or the sum of their weights."""
        weights = self.image_weights(batch.targets)
        return super().loss_weight(batch) if weights is None else weights.sum()

    def image_weights(self, targets: Tensor) -> Tensor | None:
        """The weight of each image (B,): that of its class, or their mean if images are mixed.

        Args:
            targets: (B,) int64 labels, or (B, classes) target probabilities.

        Returns:
            None without class weights.
        """
        if self.class_weights is None:
            return None
        return self.class_weights[targets] if targets.ndim == 1 else targets @ self.class_weights

    @property
    def calibrates(self) -> bool:
        """As the config says."""
        return self.config.calibrate

    @staticmethod
    def probabilities(logits: Tensor) -> Tensor:
        """(..., classes) logits -> softmax over the classes."""
        return logits.softmax(-1)

    def prediction(
        self, path: Path, record: Prediction | None, error: str | None, info: DataInfo, top_k: int
    ) -> ImagePrediction:
        """The most probable classes of an image."""
        if record is None:
            return ImagePrediction(path, (), error)
        return ImagePrediction(path, top_classes(record.probabilities, info.class_names, top_k))

    def metrics(self) -> ClassificationMetrics:
        """New scores for ``num_classes`` classes."""
        # torchmetrics is needed for evaluation only, not for prediction.
        from pacavit.tasks.classification.metrics import ClassificationMetrics

        # With test-time augmentation the logits are means, which do not give the probabilities.
        calibrated = self.temperature != 1 and self.test_time_augmentation is None
        return ClassificationMetrics(self.num_classes, calibrated=calibrated)

    def summarize(self, results: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The metrics in the order of tables, and the number of images of each class."""
        kinds = [
            f"{kind}_{average}"
            for average in ("macro", "weighted", "per_class")
            for kind in ("precision", "recall", "f1")
        ]
        order = dict.fromkeys(["accuracy", "loss", *kinds, *results])
        ordered = {name: results[name] for name in order}
        return ordered | {"support_per_class": results["confusion"].sum(1)}

    def check_data(self, images: ImageSet) -> None:
        """Raise DataError if a split has labels beyond the classes of the task."""
        if not isinstance(images, LabeledImages):
            return
        highest = int(images.labels.max())
        if highest >= self.num_classes:
            raise DataError(
                f"the images have labels up to {highest}, "
                f"but the model knows {self.num_classes} classes"
            )
