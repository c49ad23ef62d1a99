"""What test_distributed.py starts with torchrun: runs one after the other, in every process.

The first argument is a folder; each further one is ``HOW:NAME`` and trains ``NAME.json`` into the
folder ``NAME`` as the command line would. HOW is ``train``, ``resume``, or ``stop``, which asks
the last process to stop in the middle of the seventh step. Exit codes go to ``NAME.HOW.RANK``.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch import Tensor

from pacavit import load_plugin
from pacavit.data import Batch
from pacavit.tasks import ClassificationTask
from pacavit_cli.main import main

RANK = os.environ["RANK"]
FORWARD = ClassificationTask.forward


def stop_after(steps: int) -> None:
    """Ask this process to stop when it has begun so many training steps."""
    count = 0

    def counting(self: ClassificationTask, batch: Batch) -> dict[str, Tensor]:
        nonlocal count
        count += 1
        if count == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return FORWARD(self, batch)

    ClassificationTask.forward = counting  # type: ignore[method-assign]


def run() -> None:
    """Do what the arguments say."""
    load_plugin(Path(__file__).with_name("tiny.py"))
    folder = Path(sys.argv[1])
    for argument in sys.argv[2:]:
        how, _, name = argument.partition(":")
        if how == "stop" and RANK != "0":
            stop_after(7)
        torch.manual_seed(1234)  # a run depends on its own seed alone
        words = ["train", str(folder / f"{name}.json"), "--out", str(folder / name)]
        code = main(words + ["--resume"] * (how == "resume"))
        ClassificationTask.forward = FORWARD  # type: ignore[method-assign]
        (folder / f"{name}.{how}.{RANK}").write_text(str(code))


if __name__ == "__main__":
    run()
