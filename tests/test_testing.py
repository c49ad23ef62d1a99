"""The conformance checks notice what they promise to notice."""

import pytest
import torch
from torch import Tensor

from pacavit.attention import Attention
from pacavit.clustering import Clustering
from pacavit.testing import check_attention, check_clustering
from pacavit.types import Assignment, Grid, StageState


class OverBatch(Clustering):
    """Scores that depend on the other images."""

    def scores(self, x: Tensor, grid: Grid) -> Tensor:
        return (x - x.mean(0))[..., : self.num_clusters].transpose(1, 2)


class OverClusters(Clustering):
    """A softmax over clusters instead of patches."""

    def forward(self, x: Tensor, grid: Grid, patch_mask: Tensor | None = None) -> Assignment:
        weights = x[..., : self.num_clusters].softmax(2).transpose(1, 2)
        return Assignment(weights, weights.sum(2))


class Unused(Clustering):
    """A parameter without a gradient."""

    def __init__(self, dim: int, num_clusters: int) -> None:
        super().__init__(dim, num_clusters)
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def scores(self, x: Tensor, grid: Grid) -> Tensor:
        return x[..., : self.num_clusters].transpose(1, 2)


class FalselyOrderFree(Clustering):
    """Claims to ignore the order of patches, and does not."""

    order_free = True

    def scores(self, x: Tensor, grid: Grid) -> Tensor:
        return x.cumsum(1)[..., : self.num_clusters].transpose(1, 2)


class IgnoresMask(Attention):
    """Attends to padding."""

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        return self.attend(x, x, None), state


@pytest.mark.parametrize(
    ("cls", "promise"),
    [
        (OverBatch, "depends on its batch"),
        (OverClusters, "sum to 1"),
        (Unused, "gets no gradient"),
        (FalselyOrderFree, "order_free"),
    ],
)
def test_broken_clustering_is_noticed(cls: type[Clustering], promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_clustering(cls)


def test_broken_attention_is_noticed() -> None:
    with pytest.raises(AssertionError, match="padded patches"):
        check_attention(IgnoresMask)
