"""Apply a function to items in worker processes, with results in the order of the items."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset

from pacavit.errors import DataError

__all__ = ["available_cores", "map_in_workers"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_GRACE = 10  # seconds for which a worker continues after SIGTERM


def map_in_workers(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    num_workers: int,
    pin_memory: bool = False,
) -> Iterator[Result]:
    """Yield ``function(item)`` for all items in their order, some of them ahead of time.

    Args:
        function: its result depends on its argument alone; it must not draw random numbers.
        items: its arguments.
        num_workers: number of processes; 0 computes each result in this process when it is needed.
        pin_memory: put tensors of the results into pinned memory, for a GPU.

    Raises:
        DataError: a process died, or the function raised it.
    """
    if num_workers == 0:
        yield from map(function, items)
        return
    with warnings.catch_warnings():
        # Python warns of forking a process with threads, but torch's workers do not touch those;
        # torch warns of more workers than cores, a number that the caller chooses.
        warnings.simplefilter("ignore")
        results = iter(
            DataLoader(
                cast(Dataset[Any], _Mapped(function, items)),
                batch_size=None,
                num_workers=min(num_workers, max(1, len(items))),
                collate_fn=_unchanged,
                worker_init_fn=_leave_signals_to_the_parent,
                pin_memory=pin_memory,
                # By default it would draw from the generator of the training.
                generator=torch.Generator(),
                # Forked processes start quickly and share the memory of the function.
                multiprocessing_context="fork" if sys.platform == "linux" else None,
            )
        )
    try:
        while True:
            try:
                result = next(results)
            except StopIteration:
                return
            except RuntimeError as error:
                if "DataLoader worker (pid" not in str(error):
                    raise
                raise DataError(
                    "a process that reads images died, perhaps for want of memory; lower "
                    "data.num_workers, or the batch size"
                ) from error
            if isinstance(result, DataError):
                raise result
            yield result
    finally:
        # Left to the garbage collector, queues may close before workers, which then hang.
        del results


class _Mapped:
    """A map-style dataset for torch's DataLoader, whose entries are results."""

    def __init__(self, function: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self.function, self.items = function, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> Any:
        try:
            return self.function(self.items[position])
        except DataError as error:
            return error  # raised in a worker, its message would contain a traceback


def _unchanged(result: Result) -> Result:
    return result


def _leave_signals_to_the_parent(_: int) -> None:
    """Ignore Ctrl-C, and delay SIGTERM by a few seconds.

    Both reach all processes of a group, but the parent still needs batches to finish its step.
    SIGTERM is not ignored, because Python sends it to end workers when the parent exits.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE))


def available_cores() -> int:
    """Processor cores for this process; processes of torchrun divide those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
