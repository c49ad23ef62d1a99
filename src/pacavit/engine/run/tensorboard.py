"""Scalars for TensorBoard, written by the training process itself."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import (  # type: ignore[import-untyped]
    Event,
    SessionLog,
)
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import (  # type: ignore[import-untyped]
    RecordWriter,
)

__all__ = ["TensorBoardWriter"]


class TensorBoardWriter:
    """One event file of a session.

    ``torch.utils.tensorboard`` opens the file anew for every number, in a thread whose errors (a
    full disk) end up on the terminal, and puts the name of the machine into that of the file.

    Args:
        folder: the log directory; made if need be.
        first_step: events of earlier sessions from this step on are no longer shown.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        self.file = (folder / name).open("wb")
        self.records = RecordWriter(self.file)
        self._write(Event(file_version="brain.Event:2", step=first_step))
        self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Record a number."""
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        self._write(Event(step=step, summary=summary))

    def flush(self) -> None:
        """Hand everything to the operating system: it outlives this process."""
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self.records.write(event.SerializeToString())
