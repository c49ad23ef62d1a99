"""How loops are compiled: cached where a folder can be written, serial in forked processes."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FunctionType
from typing import Any

from numba import config, njit

__all__ = ["FAST", "compiled", "over_images"]

# Sums in any order, so that they fill the registers of the processor; NaN and infinity stay.
FAST = {"contract", "reassoc", "nsz", "arcp"}


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: ``numba.njit`` whose machine code is kept on disk, if any folder can be written.

    The first that can be written of: numba's own choice (``NUMBA_CACHE_DIR``, the folder of the
    source, the user's cache folder), a folder of this user among the temporary files. Without one,
    each process compiles anew.

    Args:
        **options: of ``numba.njit``.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        dispatcher = njit(error_model="numpy", **options)(function)
        for folder in (_numbas_choice, _temporary_folder):
            with folder() as usable:
                try:
                    if usable:
                        dispatcher.enable_caching()
                        break
                except RuntimeError:  # how numba reports that it finds no folder
                    continue
        return dispatcher

    return decorate


def over_images(function: Callable[..., None]) -> Callable[..., Any]:
    """Compile a loop over images: parallel, but serial in a process that was forked.

    The threads of OpenMP do not survive a fork; a child that starts them again is killed. (Torch's
    own do not either: a child calls ``torch.set_num_threads(1)``, as workers of data loaders do.)
    """
    # numba's files are named after functions, whatever their options: two names are needed.
    assert isinstance(function, FunctionType)
    copy = FunctionType(function.__code__, function.__globals__, f"{function.__name__}_serial")
    copy.__qualname__, copy.__module__ = copy.__name__, function.__module__
    parallel, serial = compiled(parallel=True)(function), compiled()(copy)

    @wraps(function)
    def run(*args: Any) -> None:
        (serial if _process["forked"] else parallel)(*args)

    return run


_process = {"forked": False}


def _mark_forked() -> None:
    _process["forked"] = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)


@contextmanager
def _numbas_choice() -> Iterator[bool]:
    yield True


@contextmanager
def _temporary_folder() -> Iterator[bool]:
    """Let numba cache in a temporary folder that nobody but this user can write to.

    Cached code is run, so a folder that another user prepared under the same name is refused.
    """
    user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    before = config.CACHE_DIR
    try:
        folder = Path(tempfile.gettempdir()) / f"pacavit-numba-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        yield False
        return
    own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    if not own or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
        yield False
        return
    config.CACHE_DIR = str(folder)
    try:
        yield True
    finally:
        config.CACHE_DIR = before
