"""Progress of long work: a bar on a terminal, and a line every few seconds in a file or pipe.

Only the caller of a verb knows whether progress is wanted, and where. It opens ``show_progress``;
whatever takes long inside of it calls ``progress`` and ``announce``, which do nothing otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["announce", "progress", "show_progress"]

Item = TypeVar("Item")

_FIRST_LINE, _NEXT_LINE = 1.0, 5.0  # seconds until a line, where there is no terminal
_console: ContextVar[Console | None] = ContextVar("console", default=None)


@contextmanager
def show_progress(console: Console | None) -> Iterator[None]:
    """Show the progress of the work inside on a console; None shows nothing."""
    token = _console.set(console)
    try:
        yield
    finally:
        _console.reset(token)


def announce(text: str) -> None:
    """Print a line where progress is shown."""
    console = _console.get()
    if console is not None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def progress(
    items: Iterable[Item],
    what: str,
    total: int,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Item]:
    """Yield the items; show how many are done where progress is shown.

    Args:
        items: what is worked on.
        what: the work, for example "reading images".
        total: number of items.
        clock: returns the time in seconds.
    """
    console = _console.get()
    if console is None or console.quiet:
        yield from items
    elif console.is_terminal:
        from rich.progress import track

        yield from track(items, what, total, console=console, transient=True)
    else:
        due = clock() + _FIRST_LINE
        for number, item in enumerate(items):
            if clock() >= due:
                announce(f"{what} {number:,}/{total:,}")
                due = clock() + _NEXT_LINE
            yield item
