"""Maps of clusters: heatmaps, the partition, importance, and maps that combine these.

All maps are of the patches of a stage, (..., H, W); :mod:`~pacavit.explain.core.geometry` and
:meth:`~pacavit.explain.classification.ImageExplanation.restored` resample them to the image. They
have no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pacavit.errors import PacavitError
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
    """Rows of the assignment: (B, M, H, W); each sums to 1, that of an invalid cluster to 0."""
    assignment, grid = block.clusters()
    return assignment.weights.float().unflatten(2, grid)


def partition(block: BlockRecord) -> Tensor:
    """The cluster to which most of each patch belongs: (B, H, W) int64, -1 for none."""
    assignment, grid = block.clusters()
    return assignment.partition().unflatten(1, grid)


def received(block: BlockRecord) -> Tensor:
    """Attention that clusters receive, averaged over patches and heads: (B, M), sums to 1."""
    return _cluster_attention(block).mean((1, 2))


def importance(block: BlockRecord) -> Tensor:
    """Importance of clusters for the score that was differentiated: (B, M), >= 0.

    Attention times the positive part of its gradient, summed over patches and heads. The product is
    that of Chefer et al., "Generic attention-model explainability", ICCV 2021, who average it over
    heads.
    """
    return (_cluster_attention(block) * block.attention_gradient().clamp(min=0)).sum((1, 2))


def class_map(recording: Recording, stage: int | None = None) -> Tensor:
    """Heatmaps weighted by the importance of their clusters, summed over blocks: (B, H, W).

    Args:
        recording: after ``backward``.
        stage: with clusters; None is the last.

    Raises:
        PacavitError: the stage has no clusters, or no score was differentiated.
    """
    return _weighted(recording, stage, gradient=True)


def attention_map(recording: Recording, stage: int | None = None) -> Tensor:
    """Heatmaps weighted by the attention their clusters receive, summed over blocks: (B, H, W).

    It does not depend on a class, and needs no gradient.

    Args:
        recording: after a forward pass.
        stage: with clusters; None is the last.

    Raises:
        PacavitError: the stage has no clusters.
    """
    return _weighted(recording, stage, gradient=False)


def patch_attention(block: BlockRecord) -> Tensor:
    """Attention of patches to clusters, averaged over heads: (B, N, M), rows sum to 1."""
    return _cluster_attention(block).mean(1)


def patch_map(block: BlockRecord, row: int, column: int) -> Tensor:
    """Attention of one patch to all patches, directly or through clusters: (B, H, W), sums to 1.

    With clusters it is a row of the attention (patches to clusters) times the assignment weights
    (clusters to patches).

    Raises:
        IndexError: there is no such patch on the grid.
        PacavitError: the tokens are not a grid, or the weights of the attention are not known.
    """
    grid = block.grid
    if grid is None:
        raise PacavitError(f"the tokens of the attention {block.name} are not a plain grid")
    if not (0 <= row < grid.height and 0 <= column < grid.width):
        raise IndexError(f"no patch at row {row}, column {column} of a grid of {tuple(grid)}")
    record = block.record()
    patch = record.weights.new_zeros(len(record.weights), grid.num_patches)
    patch[:, row * grid.width + column] = 1
    return record.to_patches(patch, record.weights.mean(1)).unflatten(1, grid)


def _cluster_attention(block: BlockRecord) -> Tensor:
    """The attention whose keys are the clusters: (B, h, N, M)."""
    assignment, _ = block.clusters()
    attention = block.attention()
    if attention.shape[3] != assignment.weights.shape[1]:
        raise PacavitError(
            f"the keys of the attention {block.name} are not the clusters of its stage; choose a "
            "method that shows no clusters, such as rollout"
        )
    return attention


def _weighted(recording: Recording, stage: int | None, *, gradient: bool) -> Tensor:
    blocks = recording.stage(stage)
    weigh = importance if gradient else received
    return torch.stack([_blend(weigh(block), heatmaps(block)) for block in blocks]).sum(0)


def _blend(weights: Tensor, maps: Tensor) -> Tensor:
    """(B, M) and (B, M, H, W) -> (B, H, W)."""
    return torch.einsum("bm,bmhw->bhw", weights.to(maps), maps)
