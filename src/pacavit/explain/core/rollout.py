"""Attention rollout from the head back to the first stage, without N x N matrices.

Rows of the attention A (over M clusters) and of the weights W (over N patches) sum to 1, so
P = A W is a row-stochastic N x N matrix of rank M at most. A distribution r over patches is
propagated back through a block as r/2 + (r A) W / 2: half of it along the shortcut, as in Abnar and
Zuidema, "Quantifying attention flow in transformers", ACL 2020. For other attentions, their
:class:`~pacavit.types.AttentionRecord` gives the patches that their keys stand for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pacavit.errors import PacavitError
from pacavit.explain.core.geometry import Window, find_pacavit, windows
from pacavit.explain.core.record import BlockRecord, Recording

__all__ = ["relevance", "rollout"]


def rollout(recording: Recording, model: nn.Module) -> Tensor:
    """Attention rollout: (B, H, W) of the first stage, sums to 1.

    It starts with a uniform distribution over the last stage, because the head averages its
    patches. Between stages, the mass of each patch is spread evenly over the finer patches that
    each layer of the transition reads.

    Args:
        recording: after a forward pass.
        model: the recorded PacaViT, or the network that contains it.

    Raises:
        PacavitError: it is no PacaViT, or the keys of an attention are not known.
    """
    return _roll(recording, model, gradient=False)


def relevance(recording: Recording, model: nn.Module) -> Tensor:
    """Rollout for the score that was differentiated: (B, H, W) of the first stage, sums to 1.

    Attention is replaced by attention times the positive part of its gradient, averaged over heads:
    Chefer et al., "Generic attention-model explainability", ICCV 2021. Shortcuts have the factor 1;
    the path through shortcuts alone does not depend on the class and is left out. Only the final
    map is normalized; it is 0 if all gradients are 0.

    Args:
        recording: after ``backward``.
        model: the recorded PacaViT, or the network that contains it.

    Raises:
        PacavitError: it is no PacaViT, the keys of an attention are not known, or there is no
            gradient.
    """
    found = _roll(recording, model, gradient=True)
    total = found.sum((1, 2), keepdim=True)
    return found / total.clamp(min=torch.finfo(found.dtype).tiny)


def _roll(recording: Recording, model: nn.Module, *, gradient: bool) -> Tensor:
    stages: Any = find_pacavit(model).stages
    by_stage = _by_stage(recording.blocks, len(stages))
    first = by_stage[-1][0]
    assert first.grid is not None
    assert recording.images is not None
    num_patches, num_images = first.grid.num_patches, len(recording.images)
    r = torch.full((num_images, num_patches), 1 / num_patches, device=recording.images.device)
    # Summed apart from r, because it may be tiny compared with the path through shortcuts.
    gained = torch.zeros_like(r)
    for index in reversed(range(len(stages))):
        for block in reversed(by_stage[index]):
            if gradient:
                gained = gained + _through(r + gained, block, gradient=True)
            else:
                r = (r + _through(r, block, gradient=False)) / 2
        coarse = by_stage[index][0].grid
        if index:
            fine = by_stage[index - 1][0].grid
            assert coarse is not None
            assert fine is not None
            layers = windows(stages[index].embed)
            r = _spread(r.unflatten(1, coarse), layers, fine).flatten(1)
            gained = _spread(gained.unflatten(1, coarse), layers, fine).flatten(1)
    assert coarse is not None
    return (gained if gradient else r).unflatten(1, coarse)


def _by_stage(blocks: Sequence[BlockRecord], num_stages: int) -> list[list[BlockRecord]]:
    found: list[list[BlockRecord]] = [[] for _ in range(num_stages)]
    for block in blocks:
        if block.stage is not None:
            found[block.stage].append(block)
    for index, stage in enumerate(found):
        if not stage or any(block.grid is None for block in stage):
            raise PacavitError(
                f"stage {index} has no recorded attention on a grid, so nothing can be followed "
                "through it; choose another method, such as grad_cam"
            )
    return found


def _through(r: Tensor, block: BlockRecord, *, gradient: bool) -> Tensor:
    """Propagate r back through the attention of a block, r P: (B, N) -> (B, N)."""
    record = block.record()
    flow = record.weights
    if record.keys is None and flow.shape[3] != r.shape[1]:
        raise PacavitError(
            f"the attention {block.name} goes neither to clusters nor to patches, and does not "
            "implement Attention.recorded; rollout cannot follow it"
        )
    if gradient:
        flow = flow * block.attention_gradient().clamp(min=0)
    return record.to_patches(r, flow.mean(1))


def _spread(r: Tensor, layers: Sequence[Window], fine: Sequence[int]) -> Tensor:
    """Mass on a coarse grid (B, H, W) -> on the finer grid that its layers read, the same sum."""
    rows, columns = (_reads(side, layers).to(r) for side in fine)
    if (len(rows), len(columns)) != tuple(r.shape[1:]):
        raise PacavitError(
            f"a transition makes {tuple(r.shape[1:])} patches of {tuple(fine)} in a way that is "
            "not known; rollout cannot follow it"
        )
    return rows.T @ r @ columns


def _reads(side: int, layers: Sequence[Window]) -> Tensor:
    """Fractions of fine cells that layers read for coarse cells: (coarse, fine), rows sum to 1."""
    reads = torch.eye(side)
    for layer in layers:
        steps = (len(reads) + 2 * layer.padding - layer.kernel) / layer.stride
        starts = torch.arange((math.ceil if layer.ceil else math.floor)(steps) + 1) * layer.stride
        offset = torch.arange(len(reads)) - starts[:, None] + layer.padding
        inside = ((offset >= 0) & (offset < layer.kernel)).float()
        reads = inside / inside.sum(1, keepdim=True) @ reads
    return reads
