"""Plug-in: torchvision's LR-ASPP and DeepLabV3 with MobileNetV3, trained and measured as ours.

::

    pacavit --plugin benchmarks/torchvision_segmentation.py train camvid_nano_paca \
        --data ROOT --out DIR --set model.init=null --set task.name=torchvision-segmentation \
        --set task.network=lraspp_mobilenet_v3_large
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field
from torch import Tensor, nn
from torchvision.models import segmentation

from pacavit.data import DataInfo
from pacavit.heads import HeadOutput
from pacavit.report.tasks import SegmentationReport
from pacavit.report.tasks.base import REPORTS
from pacavit.tasks import TASKS, NetworkFactory
from pacavit.tasks.segmentation import SegmentationConfig, SegmentationTask

__all__ = ["TorchvisionConfig", "TorchvisionSegmentation", "TorchvisionSegmenter"]


class TorchvisionConfig(SegmentationConfig):
    """The segmentation task with a network of torchvision; ``head`` and ``stages`` are ignored."""

    name: Literal["torchvision-segmentation"] = Field(  # type: ignore[assignment]
        default="torchvision-segmentation", description="The task."
    )
    network: Literal["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"] = Field(
        default="lraspp_mobilenet_v3_large", description="Name in torchvision."
    )


class _Head(nn.Module):
    """What the task asks a head: losses over labeled pixels, and no clusters."""

    loss_weights: ClassVar[Mapping[str, float]] = {}
    mean_over_labeled: ClassVar[bool] = True
    cluster_logits: ClassVar[str | None] = None


class TorchvisionSegmenter(nn.Module):
    """(B, 3, height, width) -> logits (B, classes, height, width), randomly initialized.

    Args:
        name: of the network in torchvision.
        num_classes: number of classes.
    """

    def __init__(self, name: str, num_classes: int) -> None:
        super().__init__()
        build = getattr(segmentation, name)
        self.network = build(weights=None, weights_backbone=None, num_classes=num_classes)
        self.head = _Head()

    def forward(self, images: Tensor) -> HeadOutput:
        """Logits at the size of the images."""
        return HeadOutput(self.network(images)["out"], {})


@TASKS.register("torchvision-segmentation")
class TorchvisionSegmentation(SegmentationTask):
    """Semantic segmentation with a network of torchvision."""

    config_type = TorchvisionConfig

    @classmethod
    def build(cls, config: TorchvisionConfig, info: DataInfo, network: NetworkFactory) -> Self:  # type: ignore[override]
        """The task; the ``[model]`` section of the recipe is ignored."""
        num_classes = len(info.class_names)
        return cls(TorchvisionSegmenter(config.network, num_classes), config, num_classes)  # type: ignore[arg-type]


@REPORTS.register("torchvision-segmentation")
class TorchvisionReport(SegmentationReport):
    """The report of segmentation."""
