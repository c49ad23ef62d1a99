"""A clustering as people wrote them for the base class of version 0.1; it must go on working."""

# mypy: ignore-errors
import torch
from torch import nn

from pacavit.clustering.base import CLUSTERINGS, Clustering


@CLUSTERINGS.register("of_version_0_1")
class Prototypes(Clustering):
    """Learned prototypes; soft, or by the nearest prototype."""

    order_free = True
    spatial = False

    def __init__(self, dim, num_clusters, *, scale=1.0, place=0.0, hard=False, rest="nearest"):
        super().__init__(dim, num_clusters)
        self.prototypes = nn.Parameter(torch.randn(num_clusters, dim))
        self.scale = scale
        self.hard = hard
        self.differentiable = not hard
        self.own = (place, rest)  # options of its own that happen to have these names

    def scores(self, x, grid):
        return self.scale * self.prototypes.to(x.dtype) @ x.transpose(1, 2)

    def labels(self, x, grid):
        return self.scores(x, grid).argmax(1)


@CLUSTERINGS.register("placed_of_version_0_1")
class Placed(Clustering):
    """Sees positions beside the channels, through the attribute ``place``."""

    exportable = False

    def __init__(self, dim, num_clusters, *, place=0.5):
        super().__init__(dim, num_clusters)
        self.place = place

    def scores(self, x, grid):
        self.width = x.shape[2]
        return x[..., : self.num_clusters].transpose(1, 2)
