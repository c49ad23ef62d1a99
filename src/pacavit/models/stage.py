"""One resolution of the pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pacavit.layers import Block, fill_padding, reduce_mask
from pacavit.models.teacher import TeacherOutputs
from pacavit.types import Grid, StageOutput, StageState
from pacavit.utils.layout import map_of, tokens_of

__all__ = ["Stage"]


class Stage(nn.Module):
    """Embedding, blocks and a norm at one resolution: (B, C0, H0, W0) -> (B, C, H, W).

    Args:
        embed: stem or transition; returns (B, N, C) tokens and their grid.
        blocks: the blocks; the first that needs an assignment owns a clustering, unless a teacher
            computes the assignment.
        dim: channels C.
    """

    def __init__(self, embed: nn.Module, blocks: Sequence[Block], dim: int) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.grad_checkpointing = False

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        teacher_outputs: TeacherOutputs | None = None,
        *,
        return_state: bool = False,
    ) -> Tensor | StageOutput:
        """(B, C0, H0, W0) -> (B, C, H, W), a channels-last view of the normalized tokens.

        Args:
            x: an image, or the map of the stage before.
            mask: (B, H0, W0) bool, False where ``x`` is padding; there the output map is 0.
            teacher_outputs: of the model's teacher in this pass.
            return_state: return the map and the state after the last block instead of the map
                alone, which is what timm and hooks on a stage expect.
        """
        tokens: Tensor
        grid: Grid
        tokens, grid = self.embed(x, mask)
        if mask is not None:
            stride: Any = self.embed.stride
            mask = reduce_mask(mask, stride)
        patch_mask = None if mask is None else mask.flatten(1)
        state, features = StageState(), None
        if teacher_outputs is not None:
            assignment, features = teacher_outputs.next(map_of(tokens, grid))
            state = StageState(assignment)
        for block in self.blocks:
            args = (tokens, grid, state, patch_mask)
            if self.grad_checkpointing and self.training:
                tokens, state = checkpoint(block, *args, use_reentrant=False)
            else:
                tokens, state = block(*args)
        if features is not None:
            tokens = tokens + tokens_of(features)[0]
        found = fill_padding(map_of(self.norm(tokens), grid), mask)
        return StageOutput(found, state) if return_state else found
