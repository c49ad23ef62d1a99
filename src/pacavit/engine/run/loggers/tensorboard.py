"""Scalars for TensorBoard, written by the training process itself."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pacavit.engine.run.loggers.base import LOGGERS, Logger
from pacavit.recipes.schema import Recipe

__all__ = ["TensorBoardLogger"]


@LOGGERS.register("tensorboard")
class TensorBoardLogger(Logger):
    """TensorBoard: an event file for each session, in the folder ``tensorboard`` of the run.

    Steps of earlier sessions that this one repeats are hidden. ``torch.utils.tensorboard`` opens
    the file again for every number, in a thread that prints its errors (such as a full disk), and
    includes the name of the machine in the file name.
    """

    local = True

    def __init__(self, out: Path, recipe: Recipe, first_step: int) -> None:
        from tensorboard.compat.proto import event_pb2  # type: ignore[import-untyped]
        from tensorboard.summary.writer import record_writer  # type: ignore[import-untyped]

        folder = out / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        self.file = (folder / name).open("wb")
        self.records = record_writer.RecordWriter(self.file)
        self._event = event_pb2.Event
        self._write(file_version="brain.Event:2", step=first_step)
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=first_step, session_log=start)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers, and hand them to the operating system: they survive a crash."""
        for tag, value in values.items():
            self._write(step=step, summary={"value": [{"tag": tag, "simple_value": value}]})
        self.file.flush()

    def close(self, *, finished: bool) -> None:
        """Close the file."""
        self.file.close()

    def _write(self, **fields: Any) -> None:
        event = self._event(wall_time=time.time(), **fields)
        self.records.write(event.SerializeToString())
