"""Taking turns, and statistics of times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pacavit.bench.turns import quartiles, ratios, take_turns


def test_quartiles() -> None:
    assert quartiles([4, 1, 2, 3, 5, 6, 7]) == [2, 4, 6]
    assert quartiles([3.14159]) == [3.142, 3.142, 3.142]


def test_ratios_compare_within_a_round() -> None:
    assert ratios([1, 2, 4], [2, 4, 8]) == [0.5, 0.5, 0.5]


def test_steps_take_turns_and_the_warm_up_is_left_out() -> None:
    called: list[str] = []

    @contextmanager
    def entered() -> Iterator[None]:
        called.append("(")
        yield
        called.append(")")

    steps = {name: lambda name=name: called.append(name) for name in "ab"}
    times = take_turns(steps, 2, 1, [entered])
    assert "".join(called) == "(a)(b)" * 3
    assert {name: len(values) for name, values in times.items()} == {"a": 2, "b": 2}
    assert min(min(values) for values in times.values()) > 0
