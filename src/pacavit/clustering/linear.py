"""The simplest learned clustering: one linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from pacavit.clustering.base import CLUSTERINGS
from pacavit.clustering.elastic import ElasticClustering
from pacavit.types import Grid
from pacavit.utils.linear import Linear

__all__ = ["LinearClustering"]


@CLUSTERINGS.register("linear")
class LinearClustering(ElasticClustering):
    """A linear layer without bias, applied to each patch: (B, N, C) -> (B, M, N).

    Every cluster is a learned direction. From the original implementation of PaCa-ViT.

    Args:
        dim: channels C.
        num_clusters: M.
        elastic: train for any number of clusters from 1 to M, see ``ElasticClustering``.
        num_active: number of clusters in evaluation; None is M. Only with ``elastic``.
    """

    order_free = True
    spatial = False

    def __init__(
        self,
        dim: int,
        num_clusters: int,
        *,
        elastic: bool = False,
        num_active: int | None = None,
    ) -> None:
        super().__init__(dim, num_clusters, elastic=elastic, num_active=num_active)
        self.to_clusters = Linear(dim, num_clusters, bias=False)

    def last_layer(self) -> nn.Module:
        """The layer that computes a score per cluster."""
        return self.to_clusters

    def scores(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, N, C) -> (B, M, N)."""
        return self.to_clusters(x).transpose(1, 2)
