"""Shapes and small records shared by the whole package.

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

import torch
from torch import Tensor

__all__ = ["Assignment", "AttentionRecord", "Grid", "StageOutput", "StageState"]


class Grid(NamedTuple):
    """Height and width of a grid of patches, in patches."""

    height: int
    width: int

    @property
    def num_patches(self) -> int:
        """N = H x W."""
        return self.height * self.width


class Assignment(NamedTuple):
    """What a clustering returns: how much every patch counts in every cluster.

    Attributes:
        weights: (B, M, N), >= 0. Each valid row sums to 1 over N, so a cluster is a weighted
            mean of patches; invalid rows are 0.
        log_mass: (B, M), the logarithm of the sums that the rows of ``weights`` were divided by.
            :meth:`membership` and :meth:`partition` undo that division.
        valid: (B, M) bool, or None when every cluster is valid. A clustering class always
            returns a tensor or always returns None, whatever the images.
    """

    weights: Tensor
    log_mass: Tensor
    valid: Tensor | None = None

    def membership(self) -> Tensor:
        """The fraction of each patch that belongs to each cluster: (B, M, N).

        Sums to 1 over the clusters, to 0 for padding and for patches in no cluster.
        """
        return self._logits().softmax(1).nan_to_num(0)

    def partition(self) -> Tensor:
        """The cluster to which most of each patch belongs: (B, N) int64, -1 for no cluster."""
        best, cluster = self._logits().max(1)
        return cluster.masked_fill(best == -torch.inf, -1)

    def detach(self) -> Assignment:
        """The same without gradients."""
        return Assignment(self.weights.detach(), self.log_mass.detach(), self.valid)

    def _logits(self) -> Tensor:
        """(B, M, N) in fp32 or better; -inf where a patch has no weight in a cluster.

        Rows of ``weights`` sum to 1 over patches, so a large cluster has small weights; adding
        ``log_mass`` makes clusters of all sizes comparable.
        """
        weights, log_mass = (
            tensor.float() if tensor.dtype.itemsize == 2 else tensor
            for tensor in (self.weights, self.log_mass)
        )
        return weights.log() + log_mass[..., None]


class StageState(NamedTuple):
    """What one block of a stage passes to the next, and the last block to the caller.

    Attributes:
        assignment: the stage's current assignment, or None before one is computed.
        importance: (B, N), for attentions that select tokens; None otherwise.
        kept: (B, N) bool, the tokens that such an attention selected; None otherwise.
    """

    assignment: Assignment | None = None
    importance: Tensor | None = None
    kept: Tensor | None = None


class StageOutput(NamedTuple):
    """The map of a stage with the state after its last block.

    Attributes:
        features: (B, C, H, W), the map after the stage's LayerNorm.
        state: of the last block; holds the stage's assignment if the stage has clusters.
    """

    features: Tensor
    state: StageState


class AttentionRecord(NamedTuple):
    """The weights of an attention, and the patches that each of its keys stands for.

    Attributes:
        weights: (B, h, N, K), >= 0. Each row sums to 1 over the keys of its query.
        keys: None where key k is patch k (K = N); (B or 1, N, K) int64 where each query has its
            own list of patches, as in windows, neighborhoods and buckets; (B or 1, K, N)
            floating point where a key is a weighted mean of patches, as clusters and pooled
            blocks are, with rows that sum to 1 (0 for keys that are not used).
    """

    weights: Tensor
    keys: Tensor | None = None

    def fault(self) -> str | None:
        """What is wrong with the record, in words; None if nothing is."""
        if self.weights.ndim != 4:
            return f"weights of shape {tuple(self.weights.shape)}, not (B, h, N, K)"
        batch, _, num_patches, num_keys = self.weights.shape
        if self.keys is None:
            expected: tuple[int, ...] = (num_patches,)
            shape: tuple[int, ...] = (num_keys,)
        else:
            rows = (num_keys, num_patches)
            expected = rows if self.keys.is_floating_point() else rows[::-1]
            shape = tuple(self.keys.shape)
            if len(shape) == 3 and shape[0] in (1, batch):
                shape = shape[1:]
        if shape != expected:
            return f"keys of shape {shape}, which do not fit {num_patches} patches; see its docs"
        if self.keys is not None and not self.keys.is_floating_point():
            low, high = self.keys.amin(), self.keys.amax()
            if low < 0 or high >= num_patches:
                return f"keys from {low} to {high}, which are no indices of {num_patches} patches"
        sums = self.weights.sum(3)
        if not (self.weights >= 0).all() or not torch.allclose(
            sums, torch.ones_like(sums), atol=1e-2
        ):
            return "weights that are negative, not finite, or do not sum to 1 over the keys"
        return None

    def to_patches(self, queries: Tensor, flow: Tensor) -> Tensor:
        """Move values from queries to the patches of their keys: (B, N) -> (B, N).

        Args:
            queries: (B, N), a value for each query.
            flow: (B, N, K), how much of it goes to each key, for example ``weights.mean(1)``.

        Raises:
            ValueError: ``keys`` is None, but there is not one key per patch.
        """
        flow = flow.to(queries)
        if self.keys is not None and not self.keys.is_floating_point():
            moved = (queries[..., None] * flow).flatten(1)
            index = self.keys.expand_as(flow).flatten(1)
            return torch.zeros_like(queries).scatter_add(1, index, moved)
        arrived = torch.bmm(queries[:, None], flow)
        if self.keys is not None:
            keys = self.keys.to(queries).expand(len(queries), -1, -1)
            arrived = torch.bmm(arrived, keys)
        if arrived.shape[2] != queries.shape[1]:
            raise ValueError(
                f"{arrived.shape[2]} keys for {queries.shape[1]} patches, and no record of the "
                "patches that they stand for"
            )
        return arrived[:, 0]
