"""The interface of segmentation heads: from a pyramid to the logits of each pixel's class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from pacavit.utils.registry import Registry

__all__ = ["HEADS", "HeadAttention", "HeadOutput", "SegmentationHead"]


class HeadOutput(NamedTuple):
    """What a head returns; the maps are coarser than the image.

    Attributes:
        logits: (B, classes, H, W).
        supervised: further logits (B, classes, H', W') by name, each with its own loss in training.
            Those of :attr:`SegmentationHead.cluster_logits` are returned in evaluation too.
    """

    logits: Tensor
    supervised: Mapping[str, Tensor]


class HeadAttention(NamedTuple):
    """What the clusters of a head are, and which of them each pixel attends to.

    A pixel here is a position of the finest map; N = H W of them, in rows.

    Attributes:
        cluster_logits: (B, K, H, W); cluster number k is class k.
        pixel_weights: (B, K, N) fp32; of each pixel in each cluster, with sum 1 over N.
        attention: (B, N, K) fp32; of each pixel to each cluster, with sum 1 over K.
    """

    cluster_logits: Tensor
    pixel_weights: Tensor
    attention: Tensor


class SegmentationHead(nn.Module, ABC):
    """Maps of a pyramid -> logits of classes. Register one with ``@HEADS.register("name")``.

    Args of every constructor: ``in_channels`` and ``strides`` of the maps (finest first),
    ``num_classes``, then options of its own.

    Attributes:
        loss_weights: factor of the loss of each of the ``supervised`` logits, by name.
        mean_over_labeled: losses are means over the pixels that have a class; if False, over all
            pixels.
        cluster_logits: name of the ``supervised`` logits that are those of clusters, of which
            number m is class m; None for heads without.
    """

    loss_weights: ClassVar[Mapping[str, float]] = {}
    mean_over_labeled: ClassVar[bool] = True
    cluster_logits: ClassVar[str | None] = None

    @abstractmethod
    def __init__(
        self, in_channels: Sequence[int], strides: Sequence[int], num_classes: int
    ) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, maps: Sequence[Tensor]) -> HeadOutput:
        """Maps (B, C, H, W), finest first -> logits."""

    def classifiers(self) -> Sequence[nn.Module]:
        """The layers with an output per class; a run with other classes starts them anew.

        Default: none, so that weights of other classes do not fit.
        """
        return ()

    def attention(self, maps: Sequence[Tensor]) -> HeadAttention | None:
        """The clusters and the attention of the pixels to them; None for heads without clusters.

        Args:
            maps: (B, C, H, W), finest first.
        """
        return None


HEADS: Registry[SegmentationHead] = Registry("segmentation head")
