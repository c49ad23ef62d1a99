from __future__ import annotations

import pytest

from pacavit.engine.run.timer import Timer


class Clock:
    """Stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def train(timer: Timer, clock: Clock, epoch: int, seconds: list[float], lap: int = 1) -> None:
    """Steps that take so long, told in laps of so many."""
    for number, each in enumerate(seconds, 1):
        clock.now += each
        if number % lap == 0:
            timer.lap(lap, epoch)


def pause(timer: Timer, clock: Clock, seconds: float) -> None:
    clock.now += seconds
    timer.pause()


def test_first_steps_do_not_count(clock: Clock) -> None:
    timer = Timer([1.0] * 4, 10, clock)
    train(timer, clock, 0, [60.0, 9.0, 7.0])
    assert timer.steps_per_second() is None
    assert timer.seconds_left(3) is None
    train(timer, clock, 0, [2.0, 2.0])
    assert timer.steps_per_second() == pytest.approx(0.5)
    assert timer.seconds_left(5) == pytest.approx(2.0 * 35)


def test_validation_and_checkpoints_count_for_what_is_left_but_not_for_the_speed(
    clock: Clock,
) -> None:
    timer = Timer([1.0] * 4, 10, clock)
    train(timer, clock, 0, [2.0] * 10)
    pause(timer, clock, 30.0)
    assert timer.end_epoch() == pytest.approx(0.5)
    assert timer.seconds_left(10) == pytest.approx(3 * (10 * 2.0 + 30.0))
    pause(timer, clock, 6.0)  # the checkpoint after it
    train(timer, clock, 1, [2.0] * 4)
    assert timer.steps_per_second() == pytest.approx(0.5)
    assert timer.seconds_left(14) == pytest.approx(26 * 2.0 + 3 * 36.0)
    pause(timer, clock, 6.0)
    train(timer, clock, 1, [2.0] * 6)
    pause(timer, clock, 30.0)
    assert timer.end_epoch() == pytest.approx(0.5)
    assert timer.seconds_left(20) == pytest.approx(20 * 2.0 + 2 * (30 + 6 + 6 + 30) / 2)


def test_at_the_end_nothing_is_left(clock: Clock) -> None:
    timer = Timer([1.0, 1.0], 4, clock)
    for epoch in (0, 1):
        train(timer, clock, epoch, [1.0] * 4)
        pause(timer, clock, 5.0)
        timer.end_epoch()
    assert timer.seconds_left(8) == 0.0


def test_a_resumed_session_counts_its_own_steps_only(clock: Clock) -> None:
    timer = Timer([1.0] * 4, 10, clock)  # 17 of 40 steps were done before
    train(timer, clock, 1, [50.0, 2.0, 2.0])
    assert timer.seconds_left(20) is None
    pause(timer, clock, 10.0)
    assert timer.end_epoch() == pytest.approx(3 / 54)  # all it had were first steps
    train(timer, clock, 2, [2.0] * 5)
    assert timer.seconds_left(25) == pytest.approx(15 * 2.0 + 2 * 10.0)


def test_laps_of_many_steps_tell_the_same_speed(clock: Clock) -> None:
    timer = Timer([1.0] * 2, 100, clock)
    train(timer, clock, 0, [9.0] * 20 + [0.5] * 60, lap=20)
    assert timer.steps_per_second() == pytest.approx(2.0)
    assert timer.seconds_left(80) == pytest.approx(120 * 0.5)


def test_steps_on_smaller_images_are_not_taken_for_later_ones(clock: Clock) -> None:
    timer = Timer([1.0, 4.0], 10, clock)
    train(timer, clock, 0, [1.0] * 10)
    assert timer.seconds_left(10) == pytest.approx(10 * 4.0)
