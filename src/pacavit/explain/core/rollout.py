"""Attention followed from the head back to the first stage, without ever forming N x N.

Rows of the attention A (over M clusters) and of the weights W (over N patches) sum to 1, so
P = A W is a row-stochastic N x N matrix of rank M at most. A distribution r over patches goes
back through a block as r/2 + (r A) W / 2: half of it along the shortcut, as in Abnar and Zuidema,
"Quantifying attention flow in transformers", ACL 2020. Other attentions say by their
:class:`~pacavit.types.AttentionRecord` which patches their keys stand for.
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
    """Where the result comes from, by attention alone: (B, H, W) of the first stage, sums to 1.

    It starts uniform at the last stage, because the head takes the mean of its patches. Between
    stages each patch spreads its mass evenly over the finer ones that each layer of its
    transition read.

    Args:
        recording: after a forward pass.
        model: the PacaViT that was recorded, or what holds it.

    Raises:
        PacavitError: it is no PacaViT, or an attention cannot be followed.
    """
    return _roll(recording, model, gradient=False)


def relevance(recording: Recording, model: nn.Module) -> Tensor:
    """The same for the score that was differentiated: (B, H, W) of the first stage, sums to 1.

    Attention times the positive part of its gradient, the mean over heads, takes the place of
    attention: Chefer et al., "Generic attention-model explainability", ICCV 2021. Shortcuts pass
    everything on; what went through shortcuts alone does not depend on the class and is left out.
    Only the final map is normalized; it is 0 if every gradient is 0.

    Args:
        recording: after ``backward``.
        model: the PacaViT that was recorded, or what holds it.

    Raises:
        PacavitError: it is no PacaViT, an attention cannot be followed, or there is no gradient.
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
    # What came through attention is kept apart: next to r, which shortcuts pass on, it may be tiny.
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
    """One block back, r P: (B, N) -> (B, N)."""
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
    """Mass of a coarse grid (B, H, W) -> of the finer grid its layers read; the sum stays."""
    rows, columns = (_reads(side, layers).to(r) for side in fine)
    if (len(rows), len(columns)) != tuple(r.shape[1:]):
        raise PacavitError(
            f"a transition makes {tuple(r.shape[1:])} patches of {tuple(fine)} in a way that is "
            "not known; rollout cannot follow it"
        )
    return rows.T @ r @ columns


def _reads(side: int, layers: Sequence[Window]) -> Tensor:
    """What the layers read along one axis: (coarse, fine), rows sum to 1, as in average pooling."""
    reads = torch.eye(side)
    for layer in layers:
        steps = (len(reads) + 2 * layer.padding - layer.kernel) / layer.stride
        starts = torch.arange((math.ceil if layer.ceil else math.floor)(steps) + 1) * layer.stride
        offset = torch.arange(len(reads)) - starts[:, None] + layer.padding
        inside = ((offset >= 0) & (offset < layer.kernel)).float()
        reads = inside / inside.sum(1, keepdim=True) @ reads
    return reads
