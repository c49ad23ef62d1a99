"""Multi-label image classification: binary cross-entropy for each class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.data import Batch, DataInfo, ImageSet, LabeledImages
from pacavit.errors import DataError
from pacavit.tasks.base import TASKS
from pacavit.tasks.classification import Distiller, ImageClassifier, Prediction, top_classes
from pacavit.tasks.multilabel.config import MultilabelConfig
from pacavit.tasks.multilabel.predictions import LabelsPrediction

if TYPE_CHECKING:
    from pacavit.tasks.multilabel.metrics import MultilabelMetrics

__all__ = ["MultilabelTask"]


@TASKS.register("multilabel")
class MultilabelTask(ImageClassifier):
    """Any number of classes per image; the probability of each is the sigmoid of its logit.

    Args:
        model: (B, 3, height, width) -> (B, num_classes) logits.
        config: a ``MultilabelConfig``: weights, threshold, image size, augmentation, mixing.
        num_classes: K.
    """

    config_type = MultilabelConfig
    main_metric = "mAP"
    target = "labels"

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Mean binary cross-entropy over images and classes, as a scalar named "loss".

        Images that show a class count with ``positive_weight``, times the weight of the class. With
        a distiller, it is named "labels", beside "distillation".
        """
        logits = self.model(batch.images).float()  # under autocast they are bf16
        weights = torch.full((self.num_classes,), self.config.positive_weight, device=logits.device)
        if self.class_weights is not None:
            weights = weights * self.class_weights
        targets = batch.targets.to(logits)
        loss = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)
        return self.with_distillation(loss, logits, batch)

    def imitation(self, logits: Tensor, teachers: Tensor, distiller: Distiller) -> Tensor:
        """Binary cross-entropies to the teacher's decisions, or to its probabilities."""
        if distiller.hard:
            wanted, temperature = (teachers > 0).to(logits), 1.0
        else:
            temperature = distiller.temperature
            wanted = (teachers / temperature).sigmoid()
        losses = F.binary_cross_entropy_with_logits(logits / temperature, wanted, reduction="none")
        return losses.mean(1) * temperature**2

    @staticmethod
    def probabilities(logits: Tensor) -> Tensor:
        """(..., classes) logits -> the sigmoid of each."""
        return logits.sigmoid()

    def prediction(
        self, path: Path, record: Prediction | None, error: str | None, info: DataInfo, top_k: int
    ) -> LabelsPrediction:
        """The classes of an image whose probability reaches the threshold."""
        if record is None:
            return LabelsPrediction(path, (), error)
        every = top_classes(record.probabilities, info.class_names, len(info.class_names))
        labels = tuple(name for name, value in every if value >= self.config.threshold)
        return LabelsPrediction(path, every[:top_k], None, labels)

    def metrics(self) -> MultilabelMetrics:
        """New scores for ``num_classes`` classes at the config's threshold."""
        # torchmetrics is needed for evaluation only, not for prediction.
        from pacavit.tasks.multilabel.metrics import MultilabelMetrics

        return MultilabelMetrics(self.num_classes, self.config.threshold)

    def summarize(self, results: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The metrics in the order of tables, and the (1,) threshold that they were measured at.

        mAP is the mean over the classes that occur.
        """
        kinds = ("average_precision", "precision", "recall", "f1")
        order = dict.fromkeys(
            ["mAP", "f1_macro", "f1_micro", "exact_match", *(f"{kind}_per_class" for kind in kinds)]
        )
        ordered = {name: results[name] for name in dict.fromkeys([*order, *results])}
        return ordered | {"threshold": torch.tensor([self.config.threshold])}

    def check_data(self, images: ImageSet) -> None:
        """Raise DataError unless the rows of labels have one column per class."""
        if isinstance(images, LabeledImages) and images.labels.shape[1:] != (self.num_classes,):
            raise DataError(
                f"the images have labels of shape {tuple(images.labels.shape)}, "
                f"but the model knows {self.num_classes} classes"
            )
