"""Ctrl-C and SIGTERM during a run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["stop_signals"]


@contextmanager
def stop_signals(stop: Callable[[], bool], *, alone: bool) -> Iterator[None]:
    """On Ctrl-C or SIGTERM, ask a run to stop after its current step; a second Ctrl-C interrupts.

    Args:
        stop: asks for it, and returns whether that had been asked before.
        alone: a run of a single process. With several, a second Ctrl-C is ignored, because torchrun
            forwards every signal; it ends them after a while.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def request(number: int, frame: FrameType | None) -> None:
        if stop() and number == signal.SIGINT and alone:
            signal.default_int_handler(number, frame)

    previous = {
        number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
