"""Repeated measurements by turns, and their statistics."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack

import torch

__all__ = ["quartiles", "ratios", "take_turns"]


def quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile; a single value is all three."""
    few = [*values] * (2 if len(values) == 1 else 1)
    return [round(value, 3) for value in statistics.quantiles(few, n=4)]


def ratios(reference: Sequence[float], seconds: Sequence[float]) -> list[float]:
    """Quartiles over the rounds of the reference's time over another's."""
    return quartiles([first / own for first, own in zip(reference, seconds, strict=True)])


def take_turns(
    steps: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int,
    contexts: Sequence[Callable[[], AbstractContextManager[object]]] = (),
) -> dict[str, list[float]]:
    """Seconds of each step by round, without the warm-up; in every round each is run once.

    Args:
        steps: by name.
        rounds: that are measured.
        warm_up: rounds before them.
        contexts: are entered anew for every step: autocast keeps casts of weights until it ends.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(warm_up + rounds):
        for name, step in steps.items():
            with ExitStack() as stack:
                for context in contexts:
                    stack.enter_context(context())
                start = time.perf_counter()
                step()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - start
            if number >= warm_up:
                times[name].append(seconds)
    return times
