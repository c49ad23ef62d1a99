"""Scalars for TensorBoard, written by the training process itself."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

__all__ = ["TensorBoardWriter"]


class TensorBoardWriter:
    """Writes the event file of a session.

    ``torch.utils.tensorboard`` opens the file again for every number, in a thread that prints its
    errors (such as a full disk), and includes the name of the machine in the file name.

    Args:
        folder: the log directory, created if needed.
        first_step: events of earlier sessions from this step on are hidden.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto import event_pb2  # type: ignore[import-untyped]
        from tensorboard.summary.writer import record_writer  # type: ignore[import-untyped]

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        self.file = (folder / name).open("wb")
        self.records = record_writer.RecordWriter(self.file)
        self._event = event_pb2.Event
        self._write(file_version="brain.Event:2", step=first_step)
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=first_step, session_log=start)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Record a number."""
        self._write(step=step, summary={"value": [{"tag": tag, "simple_value": value}]})

    def flush(self) -> None:
        """Hand all data to the operating system, so that they survive a crash of this process."""
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _write(self, **fields: Any) -> None:
        event = self._event(wall_time=time.time(), **fields)
        self.records.write(event.SerializeToString())
