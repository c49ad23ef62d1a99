"""Soft clusterings whose first clusters are a clustering on their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pacavit.clustering.base import Clustering
from pacavit.clustering.functional._points import check_count
from pacavit.errors import RecipeError
from pacavit.types import Assignment, Grid

__all__ = ["ElasticClustering", "use_clusters"]


class ElasticClustering(Clustering):
    """Base class of soft clusterings that can be trained for any number of clusters up to M.

    With ``elastic``, training drops the last clusters of each image: only the first M' are valid,
    M' drawn uniformly from 1 to M (nested dropout: Rippel et al., ICML 2014; over learned cores
    that patches communicate through: VECA, arXiv:2605.12491). So the network learns to work with
    the first clusters alone, the most useful first, and evaluation may use any number of them; the
    others are then left out. Of an image with fewer patches than clusters, as many clusters as
    patches are valid. Draws come from PyTorch's generator, as those of dropout do.

    Args:
        dim: channels C.
        num_clusters: M.
        elastic: train for any number of clusters from 1 to M.
        num_active: number of clusters in evaluation, 1 to M; None is M. Only with ``elastic``; see
            :func:`use_clusters` for a trained network.
    """

    def __init__(
        self, dim: int, num_clusters: int, *, elastic: bool = False, num_active: int | None = None
    ) -> None:
        super().__init__(dim, num_clusters)
        if num_active is not None and not elastic:
            raise RecipeError("num_active needs elastic = true, which trains for it")
        self.elastic = elastic
        self.num_active = self._checked(num_active)

    def forward(self, x: Tensor, grid: Grid, patch_mask: Tensor | None = None) -> Assignment:
        """(B, N, C) -> Assignment of weights (B, M, N); in evaluation (B, ``num_active``, N)."""
        weights, log_mass, valid = super().forward(x, grid, patch_mask)
        if not self.elastic:
            return Assignment(weights, log_mass, valid)
        if self.training:
            number = torch.randint(1, self.num_clusters + 1, (x.shape[0], 1), device=x.device)
        else:
            number = x.new_full((x.shape[0], 1), self.num_clusters, dtype=torch.int64)
            weights, log_mass = (each[:, : self.num_active] for each in (weights, log_mass))
        patches = x.shape[1] if patch_mask is None else patch_mask.sum(1, keepdim=True)
        valid = torch.arange(weights.shape[1], device=x.device) < number.clamp(max=patches)
        return Assignment(weights * valid[..., None], log_mass, valid)

    def _checked(self, num_active: int | None) -> int | None:
        """The number, or RecipeError if there are not that many clusters."""
        if num_active is not None:
            check_count("num_active", num_active)
            if num_active > self.num_clusters:
                raise RecipeError(
                    f"num_active must be at most the {self.num_clusters} clusters of the stage, "
                    f"not {num_active}"
                )
        return num_active


def use_clusters(network: nn.Module, num_active: int | None) -> None:
    """Set how many clusters the elastic clusterings of a network use in evaluation.

    Args:
        network: a model with clusterings that were built with ``elastic``.
        num_active: of every such clustering; None is all.

    Raises:
        RecipeError: the network has no elastic clustering, or one with fewer clusters.
    """
    found = [
        module
        for module in network.modules()
        if isinstance(module, ElasticClustering) and module.elastic
    ]
    if not found:
        raise RecipeError(
            f"{type(network).__name__} has no clustering with elastic = true, so its number of "
            "clusters cannot be changed"
        )
    numbers = [module._checked(num_active) for module in found]
    for module, number in zip(found, numbers, strict=True):
        module.num_active = number
