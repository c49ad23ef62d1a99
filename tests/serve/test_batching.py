"""The queue: which items share a batch, and whom an error reaches."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from pacavit.serve.batching import Batcher
from pacavit.serve.refusals import Refusal


def run(
    scenario: Callable[[Batcher[Any, Any]], Awaitable[Any]],
    compute: Callable[[Sequence[Any]], Sequence[Any]],
    **settings: Any,
) -> tuple[Any, list[int]]:
    """The result of a scenario, and the sizes of the batches."""
    sizes: list[int] = []

    async def main() -> Any:
        defaults: dict[str, Any] = {
            "key": type,
            "max_batch": 4,
            "max_delay": 0.05,
            "capacity": 100,
        }
        batcher: Batcher[Any, Any] = Batcher(
            compute, **(defaults | settings), observe=lambda size, seconds: sizes.append(size)
        )
        work = asyncio.create_task(batcher.run())
        try:
            async with asyncio.timeout(10):
                return await scenario(batcher)
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work

    return asyncio.run(main()), sizes


def doubled(items: Sequence[int]) -> list[int]:
    return [2 * item for item in items]


def test_results_have_the_order_of_the_items_whatever_their_batches() -> None:
    async def scenario(batcher: Batcher[int, int]) -> Sequence[list[int]]:
        return await asyncio.gather(batcher.submit([1, 2, 3]), batcher.submit([4, 5, 6, 7, 8, 9]))

    results, sizes = run(scenario, doubled)
    assert results == [[2, 4, 6], [8, 10, 12, 14, 16, 18]]
    assert sizes == [4, 4, 1]


def test_items_of_different_keys_share_no_batch() -> None:
    def compute(items: Sequence[Any]) -> Sequence[Any]:
        assert len({type(item) for item in items}) == 1
        return items

    results, sizes = run(lambda batcher: batcher.submit([1, 2, "a", 3]), compute)
    assert results == [1, 2, "a", 3]
    assert sizes == [2, 1, 1]


def test_an_error_reaches_only_those_who_sent_the_item() -> None:
    def compute(items: Sequence[int]) -> list[float]:
        return [6 / item for item in items]

    async def scenario(batcher: Batcher[int, float]) -> Sequence[Any]:
        return await asyncio.gather(
            batcher.submit([1, 2]), batcher.submit([0]), return_exceptions=True
        )

    (good, bad), _ = run(scenario, compute)
    assert good == [6, 3]
    assert isinstance(bad, ZeroDivisionError)


def test_items_gather_while_a_batch_is_computed() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def compute(items: Sequence[int]) -> Sequence[int]:
        begun.set()
        assert go_on.wait(10)
        return items

    async def scenario(batcher: Batcher[int, int]) -> None:
        first = asyncio.create_task(batcher.submit([0]))
        await asyncio.to_thread(begun.wait, 10)
        others = [asyncio.create_task(batcher.submit([number])) for number in (1, 2, 3)]
        await asyncio.sleep(0.01)
        go_on.set()
        await asyncio.gather(first, *others)

    _, sizes = run(scenario, compute, max_delay=0)
    assert sizes == [1, 3]


def test_what_does_not_fit_is_refused_and_room_comes_back() -> None:
    async def scenario(batcher: Batcher[int, int]) -> list[int]:
        with batcher.reserve(2):
            with pytest.raises(Refusal) as refusal, batcher.reserve(2):
                pass
            assert refusal.value.status == 503
            assert refusal.value.headers == {"retry-after": "1"}
            with batcher.reserve(1):
                pass
        with batcher.reserve(3):
            return await batcher.submit([1, 2, 3])

    results, _ = run(scenario, doubled, capacity=3)
    assert results == [2, 4, 6]


def test_items_given_up_are_not_computed() -> None:
    seen: list[int] = []

    def compute(items: Sequence[int]) -> Sequence[int]:
        seen.extend(items)
        return items

    async def scenario(batcher: Batcher[int, int]) -> None:
        given_up = asyncio.create_task(batcher.submit([1]))
        await asyncio.sleep(0)
        given_up.cancel()
        await batcher.submit([2])

    run(scenario, compute)
    assert seen == [2]
