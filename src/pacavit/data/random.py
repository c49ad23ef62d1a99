"""Random numbers that are a function of (seed, epoch, sample index) alone.

With a stateful generator, each number would depend on those drawn before: on the order of the
samples, the batch size and the worker. Here each number is a hash of seed, epoch, sample and
purpose, so a resumed run, other batches or several processes get the same numbers for a sample.

The hash is a chain of splitmix64 finalizers (Steele, Lea, Flood: "Fast splittable pseudorandom
number generators", OOPSLA 2014), computed on int64 tensors, whose products wrap modulo 2^64.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

__all__ = ["SampleRandom", "epoch_order", "seeded_generators"]


def _signed(value: int) -> int:
    """The int64 that has the low 64 bits of ``value``."""
    return ((value + 2**63) % 2**64) - 2**63


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift_right(bits: Tensor, places: int) -> Tensor:
    """Logical right shift; torch's own repeats the sign bit."""
    return (bits >> places) & ((1 << (64 - places)) - 1)


def _hash(*parts: Tensor | int) -> Tensor:
    """Integers that broadcast together -> one int64 hash for each combination."""
    state = torch.zeros((), dtype=torch.int64)
    for part in parts:
        bits = (state + (_signed(part) if isinstance(part, int) else part)) * _MIX_1 + _GOLDEN
        bits = (bits ^ _shift_right(bits, 30)) * _MIX_1
        bits = (bits ^ _shift_right(bits, 27)) * _MIX_2
        state = bits ^ _shift_right(bits, 31)
    return state


def _stream_number(stream: int | str) -> int:
    """The number of a stream; names are hashed, so that adding streams does not change others."""
    if isinstance(stream, int):
        return stream
    return int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest())


class SampleRandom:
    """The random numbers of some samples in one epoch.

    Args:
        seed: of the run.
        epoch: counted from 0.
        indices: (B,) int64, positions of the samples in their split. Random numbers are on the
            device of this tensor.

    Example:
        >>> draws = SampleRandom(seed=0, epoch=3, indices=torch.tensor([7, 2]))
        >>> tuple(draws.uniform("brightness").shape)
        (2, 1)
    """

    def __init__(self, seed: int, epoch: int, indices: Tensor) -> None:
        self.seed, self.epoch, self.indices = seed, epoch, indices

    def at_epoch(self, epoch: int) -> SampleRandom:
        """The same samples in another epoch, for random numbers that several epochs share."""
        return SampleRandom(self.seed, epoch, self.indices)

    def sample(self, number: int) -> SampleRandom:
        """The random numbers of one of the samples, counted from 0."""
        return SampleRandom(self.seed, self.epoch, self.indices[number : number + 1])

    def uniform(self, stream: int | str, count: int = 1) -> Tensor:
        """(B, count) float32, uniform in [0, 1).

        Args:
            stream: purpose of the numbers. Different streams are independent; the same stream
                always gives the same numbers.
            count: numbers per sample.
        """
        # float32 holds 24 bits exactly, so the result is never rounded up to 1.
        return _shift_right(self._bits(stream, count), 40).float() * 2.0**-24

    def integers(self, stream: int | str, low: int, high: int, count: int = 1) -> Tensor:
        """(B, count) int64, uniform in low .. high - 1; high - low is at most 2^31.

        Args:
            stream: purpose of the numbers, as in ``uniform``.
            low: smallest possible number.
            high: one more than the largest possible number.
            count: numbers per sample.
        """
        if not 0 < high - low <= 2**31:
            raise ValueError(f"cannot draw integers from {low} up to but not including {high}")
        return low + ((_shift_right(self._bits(stream, count), 32) * (high - low)) >> 32)

    def seeds(self, stream: int | str) -> list[int]:
        """B seeds, for libraries that draw from global generators; see ``seeded_generators``."""
        return self.integers(stream, 0, 2**31).flatten().tolist()

    def _bits(self, stream: int | str, count: int) -> Tensor:
        columns = torch.arange(count, device=self.indices.device)
        key = _hash(self.seed, self.epoch, _stream_number(stream)).item()
        return _hash(int(key), self.indices[:, None], columns)


def epoch_order(num: int, seed: int, epoch: int) -> Tensor:
    """(num,) int64: the order in which an epoch visits ``num`` samples.

    Unlike ``torch.randperm``, it is the same on every platform and in every version of torch.
    """
    return _hash(seed, epoch, _stream_number("epoch order"), torch.arange(num)).argsort(stable=True)


@contextmanager
def seeded_generators() -> Iterator[Callable[[int], None]]:
    """Seed the global generators for a library that draws from them; they are restored on exit.

    Yields a function that seeds the generators of Python, NumPy and torch (on the CPU). No other
    thread of the process may use them meanwhile.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002

    def seed(number: int) -> None:
        random.seed(number)
        np.random.seed(number)  # noqa: NPY002
        torch.default_generator.manual_seed(number)

    try:
        yield seed
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
