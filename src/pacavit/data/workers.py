"""A function applied to items in worker processes, with results in the order of the items."""

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

_GRACE = 10  # seconds that a worker goes on after SIGTERM


def map_in_workers(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    num_workers: int,
    pin_memory: bool = False,
) -> Iterator[Result]:
    """Yield ``function(item)`` for all items in their order, some of them ahead of time.

    Args:
        function: takes what it needs from its arguments alone; draws nothing.
        items: its arguments.
        num_workers: processes; 0 does the work here, when a result is asked for.
        pin_memory: put tensors of the results where a GPU can fetch them from.

    Raises:
        DataError: a process died, or the function raised it.
    """
    if num_workers == 0:
        yield from map(function, items)
        return
    with warnings.catch_warnings():
        # Of threads and fork, where torch's worker loop leaves threads alone from its start; and
        # of more workers than cores, which is for the caller to choose.
        warnings.simplefilter("ignore")
        results = iter(
            DataLoader(
                cast(Dataset[Any], _Mapped(function, items)),
                batch_size=None,
                num_workers=min(num_workers, max(1, len(items))),
                collate_fn=_unchanged,
                worker_init_fn=_leave_signals_to_the_parent,
                pin_memory=pin_memory,
                # Its default is the generator that training draws from.
                generator=torch.Generator(),
                # Cheap, and shares what the function holds.
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
        # The garbage collector would end the queues before the workers, which then wait in vain.
        del results


class _Mapped:
    """A dataset whose entries are results; sequences of torch's DataLoader need no base class."""

    def __init__(self, function: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self.function, self.items = function, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> Any:
        try:
            return self.function(self.items[position])
        except DataError as error:
            return error  # raised in a worker, it would come with a traceback in its message


def _unchanged(result: Result) -> Result:
    return result


def _leave_signals_to_the_parent(_: int) -> None:
    """Ctrl-C and what a job scheduler sends reach all processes of a group.

    The parent still needs batches to finish its step, so what should end a worker ends it a little
    later. To ignore it would be too much: Python ends workers that way when the parent exits.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE))


def available_cores() -> int:
    """Processor cores for this process: its share, where torchrun started more on the machine."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
