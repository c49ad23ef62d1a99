"""What else a machine does during a measurement."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["DISTURBED", "Load", "Watch", "current_load"]

DISTURBED = 0.1
"""Busy cores of other programs from which on measurements are called disturbed."""

_SECONDS, _SHORTEST = 1.0, 0.5


class Load(NamedTuple):
    """The load of a machine at one time.

    Attributes:
        average: processes that ran or waited over the last minute; None where it is unknown.
        others: cores, among those that this process may use, that other programs kept busy for a
            second; None where it is unknown (other systems than Linux).
    """

    average: float | None
    others: float | None


def current_load() -> Load:
    """The load of now; takes a second."""
    average = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    watch = Watch()
    time.sleep(_SECONDS)
    return Load(average, watch.others())


class Watch:
    """Measures, from its creation on, how many cores other programs keep busy."""

    def __init__(self) -> None:
        self._start, self._busy, self._own = time.perf_counter(), _busy_seconds(), _own_seconds()

    def others(self) -> float | None:
        """Cores busy with other programs, on average since the creation; None if unknown.

        It is unknown after less than half a second too, because the system counts in steps of a
        hundredth of a second.
        """
        busy, passed = _busy_seconds(), time.perf_counter() - self._start
        if busy is None or self._busy is None or passed < _SHORTEST:
            return None
        foreign = busy - self._busy - (_own_seconds() - self._own)
        return round(max(0.0, foreign) / passed, 2)


def _own_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def _busy_seconds() -> float | None:
    """Seconds that the cores of this process were busy since the start of the machine."""
    try:
        lines = Path("/proc/stat").read_text("ascii").splitlines()
    except OSError:
        return None
    cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    for name, *fields in map(str.split, lines):
        if name in cores:
            user, nice, system, _idle, _waiting, irq, soft_irq, steal = map(int, fields[:8])
            ticks += user + nice + system + irq + soft_irq + steal
    return ticks / os.sysconf("SC_CLK_TCK")
