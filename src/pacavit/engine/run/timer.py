"""Speed of a run, and its remaining time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

__all__ = ["Timer"]

_WARM_UP = 3  # steps that allocate memory, compile, and start workers
_RECENT = 50  # laps over which the current speed is averaged


class Timer:
    """Times one session of a run: laps of training steps, and pauses between them.

    The first steps are ignored, because they are slower than all later ones. Pauses (validation,
    checkpoints) are part of the remaining time but not of the speed.

    Args:
        costs: relative duration of a step in each epoch of the run, such as pixels per image.
        steps_per_epoch: training steps in each epoch.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        costs: Sequence[float],
        steps_per_epoch: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.costs, self.steps_per_epoch, self.clock = tuple(costs), steps_per_epoch, clock
        self.cold = _WARM_UP
        self.step_seconds = self.step_costs = 0.0
        self.pause_seconds, self.epochs = 0.0, 0
        self.recent: deque[tuple[int, float]] = deque(maxlen=_RECENT)
        self.epoch_laps: list[tuple[int, float]] = []
        self.cold_laps: list[tuple[int, float]] = []
        self.mark = clock()

    def lap(self, steps: int, epoch: int) -> None:
        """Count ``steps`` training steps since the last call, of an epoch counted from 0."""
        seconds = self._since_mark()
        if self.cold > 0:
            self.cold -= steps
            self.cold_laps.append((steps, seconds))
            return
        self.step_seconds += seconds
        self.step_costs += steps * self.costs[epoch]
        self.recent.append((steps, seconds))
        self.epoch_laps.append((steps, seconds))

    def pause(self) -> None:
        """Count the time since the last call as a pause."""
        self.pause_seconds += self._since_mark()

    def end_epoch(self) -> float:
        """Count an epoch as trained and validated; returns its training steps per second.

        If an epoch has only warm-up steps, they count.
        """
        self.epochs += 1
        speed = _steps_per_second(self.epoch_laps or self.cold_laps)
        self.epoch_laps, self.cold_laps = [], []
        return speed

    def steps_per_second(self) -> float | None:
        """Speed over the latest training steps; None before any step was timed."""
        return _steps_per_second(self.recent) if self.recent else None

    def seconds_left(self, step: int) -> float | None:
        """Remaining time of the run after a step, including pauses as long as those so far.

        Pauses are left out until this session has finished an epoch.

        Args:
            step: number of finished steps.

        Returns:
            Seconds, or None before any step was timed.
        """
        if not self.step_costs:
            return None
        epoch, batch = divmod(step, self.steps_per_epoch)
        cost = sum(self.costs[epoch:]) * self.steps_per_epoch
        if batch:
            cost -= batch * self.costs[epoch]
        seconds = cost * self.step_seconds / self.step_costs
        if self.epochs:
            seconds += (len(self.costs) - epoch) * self.pause_seconds / self.epochs
        return seconds

    def _since_mark(self) -> float:
        now = self.clock()
        seconds, self.mark = now - self.mark, now
        return seconds


def _steps_per_second(laps: Sequence[tuple[int, float]]) -> float:
    seconds = sum(seconds for _, seconds in laps)
    return sum(steps for steps, _ in laps) / max(seconds, 1e-9)
