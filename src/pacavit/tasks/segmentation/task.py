"""Semantic segmentation: cross-entropy of every pixel, and intersection over union."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.data import (
    IGNORE_INDEX,
    Batch,
    DataInfo,
    Placement,
    Preprocess,
)
from pacavit.errors import RecipeError
from pacavit.heads import HEADS
from pacavit.tasks.base import TASKS, NetworkFactory, Task
from pacavit.tasks.dense import create_part, predict_by_size
from pacavit.tasks.graph import DenseGraph, Engine, dense_graph, run_dense
from pacavit.tasks.segmentation.config import SegmentationConfig
from pacavit.tasks.segmentation.inference import ImageLogits, slide_over
from pacavit.tasks.segmentation.predictions import (
    ImageSegmentation,
    Segmentation,
    restore_logits,
)
from pacavit.tasks.segmentation.preprocess import SegmentationPreprocess
from pacavit.tasks.segmentation.segmenter import Segmenter
from pacavit.utils.layout import enlarge

if TYPE_CHECKING:
    from pacavit.tasks.segmentation.metrics import SegmentationMetrics

__all__ = ["SegmentationTask"]


@TASKS.register("segmentation")
class SegmentationTask(Task):
    """One class per pixel.

    Args:
        model: backbone and head.
        config: of the task.
        num_classes: K.

    Attributes:
        class_weights: (classes,) float32, of the classes in the losses; None if all count the same.
    """

    config_type = SegmentationConfig
    main_metric = "mIoU"
    target = "mask"
    model: Segmenter
    class_weights: Tensor | None

    def __init__(self, model: Segmenter, config: SegmentationConfig, num_classes: int) -> None:
        super().__init__()
        self.model, self.config, self.num_classes = model, config, num_classes
        self.register_buffer("class_weights", None, persistent=False)

    @classmethod
    def build(cls, config: SegmentationConfig, info: DataInfo, network: NetworkFactory) -> Self:
        """The task around a backbone, and the head that the config names."""
        backbone = network.pyramid(config.stages)
        _check_windows(config, max(backbone.strides))
        num_classes = len(info.class_names)
        shape = backbone.channels, backbone.strides, num_classes
        options = config.head_options
        head = create_part(HEADS, "task.head_options", config.head, options, *shape)
        return cls(Segmenter(backbone, head), config, num_classes)

    @classmethod
    def preprocess(
        cls,
        config: SegmentationConfig,
        info: DataInfo,
        *,
        training: bool,
        image_size: int | None = None,
        epochs: int = 1,
    ) -> Preprocess:
        """Joint resizing, cropping and augmentation of images and masks."""
        return SegmentationPreprocess(config, info, training=training, image_size=image_size)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropies of the pixels, as named scalars: of the answer, then those of the head.

        Logits are enlarged to the size of the masks first. They are means over ``loss_weight``.
        """
        output = self.model(batch.images)
        weights = self.model.head.loss_weights
        total = self.loss_weight(batch).clamp_min(1)
        losses = {"pixels": self._loss(output.logits, batch.targets, total)}
        for name, logits in output.supervised.items():
            losses[name] = weights[name] * self._loss(logits, batch.targets, total)
        return losses

    def _loss(self, logits: Tensor, masks: Tensor, total: Tensor) -> Tensor:
        """The cross-entropy of logits (B, K, H, W) and masks (B, height, width) over ``total``."""
        summed = F.cross_entropy(
            enlarge(logits.float(), masks.shape[1:]),
            masks.long(),
            weight=self.class_weights,
            ignore_index=IGNORE_INDEX,
            reduction="sum",
        )
        return summed / total.to(summed)

    def loss_weight(self, batch: Batch) -> Tensor:
        """The number of pixels with a class, or of all, as the head has it; or their weights."""
        masks: Tensor = batch.targets
        if not self.model.head.mean_over_labeled:
            return torch.tensor(float(masks.numel()), dtype=torch.float64)
        # By counts: a sum over all pixels would need float64, which Apple's GPUs lack.
        counts = masks.flatten().bincount(minlength=IGNORE_INDEX + 1)[: self.num_classes]
        if self.class_weights is None:
            return torch.tensor(float(counts.sum()), dtype=torch.float64)
        return (counts * self.class_weights).sum()

    def set_class_weights(self, weights: Tensor) -> None:
        """Weigh the classes in the losses: (classes,) float32."""
        parameter = next(self.model.parameters(), weights)
        self.class_weights = weights.to(parameter.device, torch.float32)

    @torch.no_grad()
    def predict(self, batch: Batch) -> list[Segmentation]:
        """The classes of the pixels of each image, in the original's pixels.

        Images of different sizes are computed apart, without their padding, so that an image's
        result does not depend on others in the batch.
        """

        def predicted(images: Tensor, placements: Sequence[Placement]) -> list[Segmentation]:
            found = self.logits(images)
            return [_record(found.image(row), each) for row, each in enumerate(placements)]

        return predict_by_size(batch, predicted)

    def logits(self, images: Tensor) -> ImageLogits:
        """Logits (B, K, ...) of images of one size, whole or by windows, in fp32."""
        if self.config.slide is None:
            return self._logits(images)
        return slide_over(self._logits, images, self.config.slide)

    def _logits(self, images: Tensor) -> ImageLogits:
        output, name = self.model(images), self.model.head.cluster_logits
        clusters = None if name is None else output.supervised[name].float()
        return ImageLogits(output.logits.float(), clusters)

    def prediction(
        self,
        path: Path,
        record: Segmentation | None,
        error: str | None,
        info: DataInfo,
        top_k: int,
    ) -> ImageSegmentation:
        """The classes in an image with their areas."""
        labels = None if record is None else record.labels
        return ImageSegmentation.of(path, labels, error, info)

    def metrics(self) -> SegmentationMetrics:
        """New scores for ``num_classes`` classes."""
        # torchmetrics is needed for evaluation only, not for prediction.
        from pacavit.tasks.segmentation.metrics import SegmentationMetrics

        clusters = self.model.head.cluster_logits is not None
        return SegmentationMetrics(self.num_classes, clusters=clusters)

    def graph(self) -> DenseGraph:
        """The logits of the pixels and of the clusters."""
        return dense_graph(self.model, self.config.name)

    def run_by(self, engine: Engine, outputs: Sequence[str]) -> None:
        """Let an engine run backbone and head."""
        run_dense(self.model, engine, outputs)

    def is_finite(self, records: Sequence[Segmentation]) -> bool:
        """Whether all logits are finite."""
        return all(bool(record.logits.isfinite().all()) for record in records)

    def check(self, images: Tensor) -> None:
        """Raise RecipeError unless the head returns logits (B, num_classes, H, W)."""
        found = tuple(self._logits(images).classes.shape)
        if found[:2] != (len(images), self.num_classes) or len(found) != 4:
            raise RecipeError(
                f"the head {self.config.head!r} returns a tensor of shape {found} for "
                f"{len(images)} images and must return ({len(images)}, {self.num_classes}, H, W)"
            )


def _check_windows(config: SegmentationConfig, stride: int) -> None:
    """Raise RecipeError if windows are smaller than a cell of the coarsest map."""
    if config.slide is not None and min(config.slide.window) < stride:
        height, width = config.slide.window
        raise RecipeError(
            f"task.slide.window has {height} x {width} pixels, fewer than the {stride} x {stride} "
            "of a cell of the coarsest map; windows of the size of the crops in training are best"
        )


def _record(logits: ImageLogits, placement: Placement) -> Segmentation:
    """The record of one image, from logits (1, K, ...)."""
    labels, cluster_labels = (
        None if each is None else restore_logits(each, placement)[0].argmax(0).to(torch.uint8)
        for each in logits
    )
    assert labels is not None
    return Segmentation(
        labels,
        cluster_labels,
        logits.classes[0],
        None if logits.clusters is None else logits.clusters[0],
        placement,
    )
