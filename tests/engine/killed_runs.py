"""What test_kill.py starts: runs that kill -9 themselves, each at another moment.

The arguments are a recipe, a folder, the number of threads, and numbers: for each number N a child
process trains the recipe into the folder ``N`` below and dies when it is about to sync its N-th
file or folder to the disk. Everything that a run writes for good is synced, so these moments lie
inside the writing of every kind of file, and between training steps.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from pacavit import load_plugin, recipes
from pacavit.engine import train

FSYNC = os.fsync


def die_before_sync(number: int) -> None:
    """Let this process die at its ``number``-th call of os.fsync."""
    count = 0

    def counting(handle: int) -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        FSYNC(handle)

    os.fsync = counting  # type: ignore[assignment]


def run() -> None:
    """Do what the arguments say; this process itself never computes, so it can be forked."""
    load_plugin(Path(__file__).with_name("tiny.py"))
    recipe = recipes.load(Path(sys.argv[1]))
    folder, threads = Path(sys.argv[2]), int(sys.argv[3])
    for number in map(int, sys.argv[4:]):
        child = os.fork()
        if child == 0:
            torch.set_num_threads(threads)
            die_before_sync(number)
            train(recipe, folder / str(number), progress=False)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"the run ended before sync {number}"
        assert os.WTERMSIG(status) == signal.SIGKILL


if __name__ == "__main__":
    run()
