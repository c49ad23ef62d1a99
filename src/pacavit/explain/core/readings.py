"""The weights of an attention and their gradient, from tensors kept in a recorded pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from pacavit.errors import PacavitError
from pacavit.types import AttentionRecord
from pacavit.utils.precision import at_least_fp32

__all__ = ["NoReading", "QkvReading", "Reading", "RecordedReading"]

# Relative to the largest value: well above rounding errors (of TF32 and 16 bits), well below the
# difference that another formula makes.
_TOLERANCE, _TOLERANCE_16_BIT = 1e-2, 5e-2


@dataclass(frozen=True)
class Reading(ABC):
    """The tensors kept of one attention in one pass, detached.

    Attributes:
        name: path of the attention in the network.
    """

    name: str

    @abstractmethod
    def record(self) -> AttentionRecord:
        """The weights (B, h, N, K), in fp32 or better, and the patches of each key.

        Raises:
            PacavitError: the weights are not known.
        """

    @abstractmethod
    def gradient(self) -> Tensor | None:
        """dy/dA, (B, h, N, K), in fp32 or better; None if no score was differentiated.

        Raises:
            PacavitError: the gradient is not known.
        """


@dataclass(frozen=True)
class QkvReading(Reading):
    """The reading of an attention softmax(q k^T / sqrt d) v, by its queries, keys and values.

    Attributes:
        q: (B, h, N, d) queries.
        k: (B, h, K, d) keys, of clusters (K = M) or patches (K = N).
        v: (B, h, K, d) values.
        valid: (B, K) bool, False where keys are ignored; None is all valid.
        scale: factor of the products of queries and keys.
        keys: (B, K, N), the weights of patches in clusters; None if keys are patches.
        mixed: (B, N, C), the attention times the values, with concatenated heads.
        arrived: (B, N, C), the gradient of the score with respect to ``mixed``; None if no score
            was differentiated.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    valid: Tensor | None
    scale: float
    keys: Tensor | None
    mixed: Tensor
    arrived: Tensor | None

    def record(self) -> AttentionRecord:
        """A = softmax(q k^T / sqrt d); PacavitError if the output does not match."""
        q, k, v = (at_least_fp32(tensor) for tensor in (self.q, self.k, self.v))
        scores = q @ k.transpose(2, 3) * self.scale
        if self.valid is not None:
            scores = scores.masked_fill(~self.valid[:, None, None], -torch.inf)
        attention = scores.softmax(3)
        expected = (attention @ v).transpose(1, 2).flatten(2)
        mixed = at_least_fp32(self.mixed)
        tolerance = _TOLERANCE_16_BIT if self.mixed.dtype.itemsize == 2 else _TOLERANCE
        if (
            expected.shape != mixed.shape
            or (expected - mixed).abs().max() > tolerance * v.abs().max()
        ):
            raise PacavitError(
                f"the attention {self.name} is not softmax(q k^T / sqrt d) v over all keys, so its "
                "weights are not known; dropout, a bias or another formula changes it, and it does "
                "not implement Attention.recorded"
            )
        return AttentionRecord(attention, self.keys)

    def gradient(self) -> Tensor | None:
        """The exact product g V^T per head, where g is the gradient at ``mixed``."""
        if self.arrived is None:
            return None
        num_heads = self.v.shape[1]
        arrived = at_least_fp32(self.arrived).unflatten(2, (num_heads, -1)).transpose(1, 2)
        return arrived @ at_least_fp32(self.v).transpose(2, 3)


@dataclass(frozen=True)
class RecordedReading(Reading):
    """The reading of an attention that implements ``recorded``.

    Attributes:
        recorded: as the attention returned it.
        arrived: (B, h, N, K), the gradient at its weights; None if no score was differentiated.
    """

    recorded: AttentionRecord
    arrived: Tensor | None

    def record(self) -> AttentionRecord:
        """The record that the attention returned, checked."""
        fault = self.recorded.fault()
        if fault is not None:
            raise PacavitError(f"the attention {self.name} records {fault}")
        return AttentionRecord(at_least_fp32(self.recorded.weights), self.recorded.keys)

    def gradient(self) -> Tensor | None:
        """The gradient at the weights."""
        return None if self.arrived is None else at_least_fp32(self.arrived)


@dataclass(frozen=True)
class NoReading(Reading):
    """The reading of an attention whose weights are not known.

    Attributes:
        kind: name of its class.
    """

    kind: str

    def record(self) -> AttentionRecord:
        """Raises PacavitError."""
        raise PacavitError(
            f"the weights of the attention {self.name} are not known, because {self.kind} does not "
            "implement Attention.recorded; choose a method that needs no attention, such as "
            "grad_cam"
        )

    def gradient(self) -> Tensor | None:
        """Raises PacavitError."""
        self.record()
        return None
