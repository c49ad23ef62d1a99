"""The paper's clustering by a multi-layer perceptron."""

from __future__ import annotations

from torch import Tensor, nn

from pacavit.clustering.base import CLUSTERINGS
from pacavit.clustering.elastic import ElasticClustering
from pacavit.errors import RecipeError
from pacavit.types import Grid
from pacavit.utils.linear import Linear

__all__ = ["MlpClustering"]


@CLUSTERINGS.register("mlp")
class MlpClustering(ElasticClustering):
    """Two linear layers, applied to each patch: (B, N, C) -> (B, M, N).

    Grainger et al., "PaCa-ViT", CVPR 2023.

    Args:
        dim: channels C.
        num_clusters: M.
        hidden_ratio: width of the hidden layer over C; 4 in the paper.
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
        hidden_ratio: float = 4,
        elastic: bool = False,
        num_active: int | None = None,
    ) -> None:
        super().__init__(dim, num_clusters, elastic=elastic, num_active=num_active)
        hidden = round(dim * hidden_ratio)
        if hidden < 1:
            raise RecipeError(
                f"hidden_ratio {hidden_ratio} leaves no hidden layer of {dim} channels"
            )
        self.fc1 = Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = Linear(hidden, num_clusters)

    def last_layer(self) -> nn.Module:
        """The layer that computes a score per cluster."""
        return self.fc2

    def scores(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, N, C) -> (B, M, N)."""
        return self.fc2(self.act(self.fc1(x))).transpose(1, 2)
