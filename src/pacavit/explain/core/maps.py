"""What clusters show: heatmaps, the partition, which of them count, and maps made of these.

All maps are of the patches of a stage, (..., H, W); :mod:`~pacavit.explain.core.geometry` and
:meth:`~pacavit.explain.images.ImageExplanation.restored` bring them to the image. None of them has
a gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pacavit.explain.core.record import BlockRecord, Recording

__all__ = [
    "attention_map",
    "class_map",
    "heatmaps",
    "importance",
    "partition",
    "patch_attention",
    "patch_map",
    "received",
]


def heatmaps(block: BlockRecord) -> Tensor:
    """The rows of the assignment: (B, M, H, W), each sums to 1; those of invalid clusters to 0."""
    assignment, grid = block.clusters()
    return assignment.weights.float().unflatten(2, grid)


def partition(block: BlockRecord) -> Tensor:
    """The cluster in which each patch counts most: (B, H, W) int64, -1 for none.

    That is the argmax over m of (log weights + log mass): a large cluster's weights are small,
    because they sum to 1 over its patches.
    """
    assignment, grid = block.clusters()
    logits = assignment.weights.float().log() + assignment.log_mass.float()[..., None]
    best, cluster = logits.max(1)
    return cluster.masked_fill(best == -torch.inf, -1).unflatten(1, grid)


def received(block: BlockRecord) -> Tensor:
    """The attention that clusters receive, the mean over patches and heads: (B, M), sums to 1."""
    block.clusters()
    return block.attention().mean((1, 2))


def importance(block: BlockRecord) -> Tensor:
    """What clusters do for the score that was differentiated: (B, M), >= 0.

    Attention times the positive part of its gradient, summed over patches and heads. Chefer et
    al., "Generic attention-model explainability", ICCV 2021, have the product; there it is
    averaged over heads.
    """
    block.clusters()
    return (block.attention() * block.attention_gradient().clamp(min=0)).sum((1, 2))


def class_map(recording: Recording, stage: int | None = None) -> Tensor:
    """Heatmaps weighted by what their clusters do for the score, summed over blocks: (B, H, W).

    Args:
        recording: after ``backward``.
        stage: with clusters; None is the last.

    Raises:
        PacavitError: the stage has no clusters, or nothing was differentiated.
    """
    return _weighted(recording, stage, gradient=True)


def attention_map(recording: Recording, stage: int | None = None) -> Tensor:
    """Heatmaps weighted by the attention their clusters receive, summed over blocks: (B, H, W).

    It says where a network looks, whatever the class, and needs no gradient.

    Args:
        recording: after a forward pass.
        stage: with clusters; None is the last.

    Raises:
        PacavitError: the stage has no clusters.
    """
    return _weighted(recording, stage, gradient=False)


def patch_attention(block: BlockRecord) -> Tensor:
    """What each patch attends to, the mean over heads: (B, N, M), rows sum to 1."""
    block.clusters()
    return block.attention().mean(1)


def patch_map(block: BlockRecord, row: int, column: int) -> Tensor:
    """Where the clusters lie that one patch attends to: (B, H, W), sums to 1.

    A row of P, the attention (patches to clusters) times the weights (clusters to patches).

    Raises:
        IndexError: there is no such patch on the grid.
    """
    _, grid = block.clusters()
    if not (0 <= row < grid.height and 0 <= column < grid.width):
        raise IndexError(f"no patch at row {row}, column {column} of a grid of {tuple(grid)}")
    attended = patch_attention(block)[:, row * grid.width + column]
    return _blend(attended, heatmaps(block))


def _weighted(recording: Recording, stage: int | None, *, gradient: bool) -> Tensor:
    blocks = recording.stage(stage)
    weigh = importance if gradient else received
    return torch.stack([_blend(weigh(block), heatmaps(block)) for block in blocks]).sum(0)


def _blend(weights: Tensor, maps: Tensor) -> Tensor:
    """(B, M) and (B, M, H, W) -> (B, H, W)."""
    return torch.einsum("bm,bmhw->bhw", weights.to(maps), maps)
