"""A bounded queue whose items are computed in batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pacavit.serve.refusals import overloaded

__all__ = ["Batcher"]

Item = TypeVar("Item")
Result = TypeVar("Result")
Returned = TypeVar("Returned")


@dataclass
class _Waiting(Generic[Item]):
    item: Item
    key: Hashable
    arrived: float
    done: asyncio.Future[Any]


class Batcher(Generic[Item, Result]):
    """Computes items in batches, one batch at a time, in a thread of its own.

    A batch begins when it is full, or when its first item has waited long enough. While a batch is
    computed, items gather for the next.

    Args:
        compute: a batch of items of one key -> one result per item, in order. If it raises an error
            for a batch of several, each item is computed alone, so that an item's error reaches
            those who sent it only.
        key: items of different keys never share a batch.
        max_batch: largest number of items in a batch.
        max_delay: seconds that an item waits for others.
        capacity: largest number of reserved items.
        observe: is called with the size of each batch, and the seconds that it took.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        key: Callable[[Item], Hashable],
        max_batch: int,
        max_delay: float,
        capacity: int,
        observe: Callable[[int, float], None],
    ) -> None:
        self._compute, self._key, self._observe = compute, key, observe
        self._max_batch, self._max_delay, self._capacity = max_batch, max_delay, capacity
        self._queue: deque[_Waiting[Item]] = deque()
        self._reserved = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._arrived, self._full = asyncio.Event(), asyncio.Event()

    @contextmanager
    def reserve(self, number: int) -> Iterator[None]:
        """Keep room for items from before they are decoded until they have results.

        Raises:
            Refusal: there is no room.
        """
        if self._reserved + number > self._capacity:
            raise overloaded("the queue is full; try again later")
        self._reserved += number
        try:
            yield
        finally:
            self._reserved -= number

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """The results of reserved items, in order; raises what computing one of them raises."""
        loop = asyncio.get_running_loop()
        waiting = [
            _Waiting(item, self._key(item), loop.time(), loop.create_future()) for item in items
        ]
        self._queue += waiting
        self._arrived.set()
        if len(self._queue) >= self._max_batch:
            self._full.set()
        try:
            return list(await asyncio.gather(*(each.done for each in waiting)))
        finally:
            for each in waiting:
                each.done.cancel()  # those still in the queue are not computed

    async def call(self, function: Callable[[], Returned]) -> Returned:
        """Call a function between batches, in their thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def run(self) -> None:
        """Compute batches until it is cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._arrived.wait()
                await self._gather(loop)
                batch = self._take()
                if batch:
                    await loop.run_in_executor(self._thread, self._settle, loop, batch)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _gather(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until the batch is full, or its first item has waited long enough."""
        left = self._queue[0].arrived + self._max_delay - loop.time() if self._queue else 0
        if left <= 0 or len(self._queue) >= self._max_batch:
            return
        self._full.clear()
        try:
            async with asyncio.timeout(left):
                await self._full.wait()
        except TimeoutError:
            pass

    def _take(self) -> list[_Waiting[Item]]:
        """The first items of the queue that have the same key, without those given up."""
        batch: list[_Waiting[Item]] = []
        while self._queue and len(batch) < self._max_batch:
            if self._queue[0].done.done():
                self._queue.popleft()
            elif not batch or self._queue[0].key == batch[0].key:
                batch.append(self._queue.popleft())
            else:
                break
        if not self._queue:
            self._arrived.clear()
        return batch

    def _settle(self, loop: asyncio.AbstractEventLoop, batch: Sequence[_Waiting[Item]]) -> None:
        """Compute a batch and hand out its results, in the thread of batches."""
        start = loop.time()
        outcomes = self._outcomes([each.item for each in batch])
        loop.call_soon_threadsafe(self._hand_out, batch, outcomes, loop.time() - start)

    def _outcomes(self, items: Sequence[Item]) -> Sequence[Result | Exception]:
        try:
            return self._compute(items)
        except Exception as error:
            if len(items) == 1:
                return [error]
            return [outcome for item in items for outcome in self._outcomes([item])]

    def _hand_out(
        self,
        batch: Sequence[_Waiting[Item]],
        outcomes: Sequence[Result | Exception],
        seconds: float,
    ) -> None:
        """Observed before anybody has a result, so that whoever has one finds it counted."""
        self._observe(len(batch), seconds)
        for each, outcome in zip(batch, outcomes, strict=True):
            if each.done.done():
                continue
            if isinstance(outcome, Exception):
                each.done.set_exception(outcome)
            else:
                each.done.set_result(outcome)
