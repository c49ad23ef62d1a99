"""The shapes and small records that every part of the package shares.

Shape legend, used in every docstring:

====  ==============================================================
B     images in a batch
H, W  height and width of the grid of patches, H x W = N
N     patches (tokens)
C     channels of a token
M     clusters
h     attention heads
d     channels of one head, C = h x d
====  ==============================================================
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Assignment", "Grid", "StageState"]


class Grid(NamedTuple):
    """Height and width of a grid of patches, in patches."""

    height: int
    width: int

    @property
    def num_patches(self) -> int:
        """N = H x W."""
        return self.height * self.width


class Assignment(NamedTuple):
    """What a clustering answers: how much every patch counts in every cluster.

    Attributes:
        weights: (B, M, N), >= 0. Each valid row sums to 1 over N, so a cluster is a weighted
            mean of patches; invalid rows are 0.
        log_mass: (B, M), the logarithm of what normalising over N divided by. The argmax over m
            of ``weights.log() + log_mass[..., None]`` is the partition of the patches.
        valid: (B, M) bool, or None when every cluster is valid. Whether it is None is a fact of
            the clustering class, never of the data.
    """

    weights: Tensor
    log_mass: Tensor
    valid: Tensor | None = None


class StageState(NamedTuple):
    """What one block of a stage hands on to the next.

    Attributes:
        assignment: the stage's current assignment, or None before one is computed.
        importance: (B, N), for attentions that select tokens; None otherwise.
    """

    assignment: Assignment | None = None
    importance: Tensor | None = None
