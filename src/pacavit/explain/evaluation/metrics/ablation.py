"""Ablations of a network: without one of its clusters, and with shuffled weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pacavit.clustering import Clustering
from pacavit.errors import PacavitError
from pacavit.types import Assignment

__all__ = ["cluster_drops", "randomized", "stage_clusterings", "without_cluster"]


@contextmanager
def without_cluster(model: nn.Module, stage: int, cluster: int) -> Iterator[None]:
    """Mask one cluster of a stage inside the context, so that attention ignores it.

    Args:
        model: a network of this package.
        stage: index of a stage with clusterings.
        cluster: index, 0 to M - 1.

    Raises:
        PacavitError: the stage has no clusterings, or no cluster of that index.
    """
    clusterings = stage_clusterings(model, stage)
    fewest = min(module.num_clusters for module in clusterings)
    if not 0 <= cluster < fewest:
        raise PacavitError(f"stage {stage} has clusters 0 to {fewest - 1}, not {cluster}")

    def hide(_: nn.Module, __: Any, assignment: Assignment) -> Assignment:
        shape = assignment.weights.shape[:2]
        valid = assignment.valid
        valid = assignment.weights.new_ones(shape, dtype=torch.bool) if valid is None else valid
        others = valid.clone()
        others[:, cluster] = False
        # The only cluster of an image stays: a softmax over nothing is NaN.
        return assignment._replace(valid=others.where(others.any(1, keepdim=True), valid))

    handles = [module.register_forward_hook(hide) for module in clusterings]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def cluster_drops(model: nn.Module, images: Tensor, classes: Tensor, stage: int) -> Tensor:
    """Decrease of the logit of a class without each cluster of a stage: (B, M).

    Args:
        model: a network of this package in evaluation mode.
        images: (B, 3, H, W), normalized.
        classes: (B,) int64.
        stage: index of a stage with clusterings.

    Raises:
        PacavitError: the stage has no clusterings.
    """
    column = classes[:, None]
    whole = model(images).gather(1, column)
    drops = []
    for cluster in range(min(module.num_clusters for module in stage_clusterings(model, stage))):
        with without_cluster(model, stage, cluster):
            drops.append(whole - model(images).gather(1, column))
    return torch.cat(drops, 1)


def stage_clusterings(model: nn.Module, stage: int) -> list[Clustering]:
    """The clusterings of a stage in the order of its blocks, or the teacher's for that stage.

    Raises:
        PacavitError: the stage has none.
    """
    places: list[Any] = [getattr(model, "stages", ())]
    places.append(getattr(getattr(model, "teacher", None), "clusterings", ()))
    modules = (
        each for found in places if 0 <= stage < len(found) for each in found[stage].modules()
    )
    found = [module for module in modules if isinstance(module, Clustering)]
    if not found:
        raise PacavitError(
            f"stage {stage} has no clusterings, so none of its clusters can be removed"
        )
    return found


def randomized(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """A copy of a network in which the values of each parameter are shuffled.

    A method whose map hardly changes does not depend on what the network has learned (Adebayo et
    al., "Sanity checks for saliency maps", NeurIPS 2018).
    """
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return other
