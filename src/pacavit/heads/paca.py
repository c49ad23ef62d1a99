"""The PaCa head: patch-to-cluster attention whose clusters are the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.heads.base import HEADS, HeadAttention, HeadOutput, SegmentationHead
from pacavit.heads.layers import (
    ConvNormAct,
    EnlargedConvNormAct,
    Norm,
    check_options,
    classifier,
)
from pacavit.types import Grid
from pacavit.utils.folding import Foldable, fold_batch_norm
from pacavit.utils.layout import map_of, tokens_of
from pacavit.utils.precision import at_least_fp32

__all__ = ["PacaHead"]


class _Parts(NamedTuple):
    """The tensors of one pass.

    Attributes:
        cluster_logits: (B, K, H, W).
        pixel_weights: (B, K, H, W) fp32, with sum 1 over H W.
        queries: (B, N, C).
        keys: (B, K, C).
        values: (B, K, C).
    """

    cluster_logits: Tensor
    pixel_weights: Tensor
    queries: Tensor
    keys: Tensor
    values: Tensor


@HEADS.register("paca")
class PacaHead(SegmentationHead):
    """Attention from pixels to one cluster per class: maps -> logits (B, K, H, W) of the finest.

    Grainger et al., "PaCa-ViT", CVPR 2023. Every map is projected to C channels and enlarged to the
    size of the finest; X is their concatenation. The logits L of the clusters are computed from X
    and supervised in training (``supervised["clusters"]``), so that cluster k is class k. A softmax
    of L over the pixels gives the weights by which X is averaged to K clusters. The pixels attend
    to the clusters: a single head, without a factor of 1/sqrt(C).

    The numbers are those of the published head in half of its multiply-adds: linear layers are
    applied before maps are enlarged, and to K clusters rather than to N pixels.

    To explain a prediction, call :meth:`attention` with the maps of the backbone, as in
    ``segmenter.head.attention(segmenter.backbone(images))``: it returns the logits (B, K, H, W) of
    the clusters, the weights (B, K, N) of the pixels in them, and the attention (B, N, K) of the
    pixels to them. The logits of the clusters are also returned by ``forward``, in training and in
    evaluation, as ``supervised["clusters"]``.

    Args:
        in_channels: of each map, finest first; any number of maps.
        strides: pixels of the image from one cell of each map to the next.
        num_classes: K.
        channels: C.
        dropout: probability to drop a whole channel before the last layer.
        norm: "batch", or "group" for batches of one or two images.
        eps: of the norms.
    """

    loss_weights: ClassVar[Mapping[str, float]] = {"clusters": 0.4}
    cluster_logits: ClassVar[str | None] = "clusters"

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        channels: int = 256,
        dropout: float = 0.1,
        norm: str = "batch",
        eps: float = 1e-5,
    ) -> None:
        super().__init__(in_channels, strides, num_classes)
        check_options("paca", strides, channels, dropout)
        width, norms = len(in_channels) * channels, Norm(norm, eps)
        self.laterals = nn.ModuleList(
            ConvNormAct(number, channels, norms) for number in in_channels
        )
        self.to_queries = EnlargedConvNormAct(width, channels, norms)
        self.clustering = EnlargedConvNormAct(width, channels, norms)
        self.to_clusters = classifier(channels, num_classes)
        self.to_keys = _ClusterLayer(width, channels, norms)
        self.to_values = _ClusterLayer(width, channels, norms)
        self.proj = ConvNormAct(channels, channels, norms)
        self.drop = nn.Dropout2d(dropout)
        self.classifier = classifier(channels, num_classes)

    def forward(self, maps: Sequence[Tensor]) -> HeadOutput:
        """Maps (B, C_i, H_i, W_i), finest first -> logits (B, K, H, W)."""
        logits, _, queries, keys, values = self._parts(maps)
        # The projection of the attention's result is a matrix product with the K values instead.
        # It has a bias after its norm has been folded; weights of the attention sum to 1.
        values = F.linear(values, self.proj.conv.weight.flatten(1), self.proj.conv.bias)
        # The three are (B, 1, ..., C): one head.
        attended = F.scaled_dot_product_attention(
            queries[:, None], keys[:, None], values[:, None], scale=1.0
        )
        x = map_of(attended[:, 0], Grid(logits.shape[2], logits.shape[3]))
        x = self.drop(self.proj.act(self.proj.norm(x)))
        return HeadOutput(self.classifier(x), {"clusters": logits})

    def classifiers(self) -> Sequence[nn.Module]:
        """The logits of clusters, and those of pixels."""
        return (self.to_clusters, self.classifier)

    def attention(self, maps: Sequence[Tensor]) -> HeadAttention:
        """The clusters and the attention of the pixels to them, in differentiable operations."""
        logits, weights, queries, keys, _ = self._parts(maps)
        products = queries @ keys.mT
        return HeadAttention(logits, weights.flatten(2), at_least_fp32(products).softmax(2))

    def _parts(self, maps: Sequence[Tensor]) -> _Parts:
        projected = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        queries, _ = tokens_of(self.to_queries(projected))
        logits = self.to_clusters(self.clustering(projected))
        weights = at_least_fp32(logits).flatten(2).softmax(2).view_as(logits)
        clusters = torch.cat([weighted_sum(weights, x) for x in projected], 2)
        return _Parts(logits, weights, queries, self.to_keys(clusters), self.to_values(clusters))


class _ClusterLayer(nn.Module, Foldable):
    """Linear layer, norm over all clusters, ReLU: (B, K, C0) -> (B, K, C)."""

    def __init__(self, in_channels: int, channels: int, norm: Norm) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, channels)
        self.norm = norm.layer(channels, dims=1)
        nn.init.kaiming_normal_(self.linear.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def fold(self, *, half: bool) -> None:
        """Fold a BatchNorm into the linear layer."""
        if fold_batch_norm(self.linear, self.norm):
            self.norm = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, C0) -> (B, K, C)."""
        return self.norm(self.linear(x).mT).mT.relu()


def weighted_sum(weights: Tensor, x: Tensor) -> Tensor:
    """Sums of an enlarged map's pixels: (B, K, H, W) weights, (B, C, h, w) map -> (B, K, C).

    The sums are those of the map after bilinear enlarging to H x W. Here, the weights are gathered
    on the pixels of the small map instead, by the transpose of the enlarging.
    """
    height, width = weights.shape[2:]
    if x.shape[3] != width:
        weights = weights @ _enlarging(x.shape[3], width, weights)
    if x.shape[2] != height:
        weights = _enlarging(x.shape[2], height, weights).T @ weights
    return weights.flatten(2).to(x.dtype) @ tokens_of(x)[0]


def _enlarging(small: int, large: int, like: Tensor) -> Tensor:
    """The matrix (large, small) of bilinear enlarging along one axis."""
    identity = torch.eye(small, device=like.device, dtype=like.dtype)
    return F.interpolate(identity[None], size=large, mode="linear", align_corners=False)[0].T
