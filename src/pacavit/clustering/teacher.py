"""Clustering of the features of a teacher network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pacavit.clustering.base import CLUSTERINGS, Clustering
from pacavit.types import Grid

__all__ = ["TeacherClustering"]


@CLUSTERINGS.register("teacher")
class TeacherClustering(Clustering):
    """A pointwise layer on features of a ConvMixer beside the network: (B, N, C) -> (B, M, N).

    Grainger et al., "PaCa-ViT", CVPR 2023. A model with this clustering builds a
    :class:`~pacavit.models.teacher.ConvMixerTeacher`, which owns one of these per stage and applies
    it to its own features instead of the tokens of a block. The class attributes (``spatial``, ...)
    describe the two together.

    Args:
        dim: channels C.
        num_clusters: M.
    """

    def __init__(self, dim: int, num_clusters: int) -> None:
        super().__init__(dim, num_clusters)
        self.to_clusters = nn.Conv2d(dim, num_clusters, 1)

    def last_layer(self) -> nn.Module:
        """The layer that computes a score per cluster."""
        return self.to_clusters

    def scores(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, N, C) -> (B, M, N)."""
        layer = self.to_clusters
        assert layer.bias is not None
        # The pointwise convolution as a product that starts from the bias: it needs no change of
        # layout, and rounds like the original code. With logits this large, rounding is visible.
        weight = layer.weight.flatten(1).expand(x.shape[0], -1, -1)
        return torch.baddbmm(layer.bias[:, None], weight, x.transpose(1, 2))
