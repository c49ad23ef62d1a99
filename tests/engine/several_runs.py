"""What test_distributed.py starts with torchrun: runs one after the other, in every process.

The first argument is a folder; each further one is ``HOW:NAME`` and trains ``NAME.json`` into the
folder ``NAME`` as the command line would. HOW is ``train``, ``resume``, ``damaged`` (resume after
a file of the newest checkpoint was cut), or what happens to the last process: ``stop`` (it is asked
to stop in the seventh step), ``nan`` (so is its loss there), ``blind`` (it cannot read the images),
``lost`` (it does not even find the data), ``ended`` (its images end in the seventh step); or to the
first one: ``full`` (its disk is full then). Exit codes go to ``NAME.HOW.RANK``.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pacavit import load_plugin
from pacavit.data import Batch, ImageSet
from pacavit.data.base import DataSource
from pacavit.engine.run.log import RunLog
from pacavit.engine.trainer import Trainer
from pacavit.errors import CheckpointError, DataError
from pacavit.tasks import ClassificationTask
from pacavit_cli.main import main

RANK = os.environ["RANK"]
FORWARD = ClassificationTask.forward
TRAIN_STEP = Trainer._train_step
LOG_STEP = RunLog.step


@contextmanager
def happening(how: str) -> Iterator[None]:
    """In the last process or the first, what ``how`` says."""
    count = 0

    def forward(self: ClassificationTask, batch: Batch) -> dict[str, Tensor]:
        nonlocal count
        count += 1
        losses = FORWARD(self, batch)
        if count == 7 and how == "stop":
            os.kill(os.getpid(), signal.SIGTERM)
        if count == 7 and how == "nan":
            losses["loss"] = losses["loss"] * math.nan
        return losses

    def image_set(*arguments: object) -> ImageSet:
        raise DataError("no images here")

    def data_source(*arguments: object) -> DataSource:
        raise DataError("no data here")

    def train_step(self: Trainer, batch: Batch) -> Tensor:
        if self.progress.step == 6:
            raise DataError("no more images")
        return TRAIN_STEP(self, batch)

    def log_step(
        self: RunLog, step: int, loss: float, lr: float, losses: Mapping[str, float]
    ) -> None:
        if step == 7:
            raise CheckpointError("the disk is full")
        LOG_STEP(self, step, loss, lr, losses)

    with pytest.MonkeyPatch.context() as patch:
        if RANK == "0":
            if how == "full":
                patch.setattr(RunLog, "step", log_step)
        else:
            patch.setattr(ClassificationTask, "forward", forward)
            if how == "blind":
                patch.setattr("pacavit.engine.build.image_set", image_set)
            if how == "lost":
                patch.setattr("pacavit.engine.build.data_source", data_source)
            if how == "ended":
                patch.setattr(Trainer, "_train_step", train_step)
        yield


def cut_newest_checkpoint(run: Path) -> None:
    newest = max((run / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
    file = newest / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:100])


def run() -> None:
    """Do what the arguments say."""
    load_plugin(Path(__file__).with_name("tiny.py"))
    folder = Path(sys.argv[1])
    for argument in sys.argv[2:]:
        how, _, name = argument.partition(":")
        torch.manual_seed(1234)  # a run depends on its own seed alone
        words = ["train", str(folder / f"{name}.json"), "--out", str(folder / name)]
        if how == "damaged" and RANK == "0":
            cut_newest_checkpoint(folder / name)
        with happening(how):
            code = main(words + ["--resume"] * (how in ("resume", "damaged")))
        (folder / f"{name}.{how}.{RANK}").write_text(str(code))


if __name__ == "__main__":
    run()
