"""The paper's convolutional clustering."""

from __future__ import annotations

import math

from torch import Tensor, nn

from pacavit.clustering.base import CLUSTERINGS
from pacavit.clustering.elastic import ElasticClustering
from pacavit.errors import RecipeError
from pacavit.types import Grid
from pacavit.utils.layout import map_of, tokens_of
from pacavit.utils.linear import Linear

__all__ = ["ConvClustering"]


@CLUSTERINGS.register("conv")
class ConvClustering(ElasticClustering):
    """Depthwise convolution, pointwise layer, logits: (B, N, C) -> (B, M, N).

    Grainger et al., "PaCa-ViT", CVPR 2023. Only the first layer looks at neighbors, so the two
    pointwise convolutions of the original are linear layers on tokens here.

    Args:
        dim: channels C.
        num_clusters: M.
        kernel_size: side of the depthwise kernel in patches, odd; 7 in the paper.
        elastic: train for any number of clusters from 1 to M, see ``ElasticClustering``.
        num_active: number of clusters in evaluation; None is M. Only with ``elastic``.
    """

    def __init__(
        self,
        dim: int,
        num_clusters: int,
        *,
        kernel_size: int = 7,
        elastic: bool = False,
        num_active: int | None = None,
    ) -> None:
        super().__init__(dim, num_clusters, elastic=elastic, num_active=num_active)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise RecipeError(f"kernel_size must be odd and positive, not {kernel_size}")
        self.depthwise = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.pointwise = Linear(dim, dim)
        self.to_clusters = Linear(dim, num_clusters, bias=False)
        self.act = nn.GELU()

    def init_weights(self) -> None:
        """Linear layers that are pointwise convolutions begin as convolutions do."""
        for layer in (self.pointwise, self.to_clusters):
            nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.out_features))

    def last_layer(self) -> nn.Module:
        """The layer that computes a score per cluster."""
        return self.to_clusters

    def scores(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, N, C) -> (B, M, N)."""
        x, _ = tokens_of(self.act(self.depthwise(map_of(x, grid))))
        return self.to_clusters(self.act(self.pointwise(x))).transpose(1, 2)
