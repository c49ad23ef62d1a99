"""What a run tells: JSON lines, TensorBoard, and a live line or plain lines on the terminal."""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch.utils.tensorboard import SummaryWriter

from pacavit.engine import files

__all__ = ["METRICS", "RunLog", "read_metrics"]

METRICS = "metrics.jsonl"


class RunLog:
    """Records one session of a run; a context manager.

    Args:
        out: run folder. Rows of ``metrics.jsonl`` beyond ``first_step`` are dropped: the session
            repeats those steps.
        first_step: steps that earlier sessions have done.
        total_steps: steps in the whole run.
        epochs: epochs in the whole run.
        progress: show progress on the terminal, a live line, or a line an epoch where the output
            is no terminal.
        console: where to show it; None is standard output.
    """

    def __init__(
        self,
        out: Path,
        *,
        first_step: int,
        total_steps: int,
        epochs: int,
        progress: bool,
        console: Console | None = None,
    ) -> None:
        self.path = out / METRICS
        self.first_step, self.total_steps, self.epochs = first_step, total_steps, epochs
        self.console = console or Console(quiet=not progress)
        self.live = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            console=self.console,
            disable=not (progress and self.console.is_terminal),
        )
        self.bar = self.live.add_task("", total=total_steps, completed=first_step, text="")
        self.accuracy = ""
        self.recent: deque[tuple[float, int]] = deque(maxlen=50)
        self.clock: tuple[float, int] | None = None
        with files.writing(self.path):
            # Even with no step done there may be a row: an epoch is told before it is saved.
            if self.path.is_file():
                rows = [row for row in read_metrics(out) if row["step"] <= first_step]
                lines = "".join(json.dumps(row) + "\n" for row in rows)
                files.replace_file(self.path, lines.encode())
            # TensorBoard drops this step, too, of what earlier sessions wrote.
            self.board = SummaryWriter(str(out / "tensorboard"), purge_step=first_step + 1)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.live.stop()
        with files.writing(self.path.parent):
            self.board.close()

    def say(self, text: str) -> None:
        """Print a line, above the live one."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def step(self, step: int, epoch: int, loss: float, lr: float, images: int) -> None:
        """Record a training step; all counts are of things done."""
        now = time.perf_counter()
        self.recent.append((now, images))
        self.clock = self.clock or (now, step)
        with files.writing(self.path.parent):
            self.board.add_scalar("train/loss", loss, step)
            self.board.add_scalar("train/lr", lr, step)
        self.live.update(
            self.bar,
            completed=step,
            description=f"epoch {epoch + 1}/{self.epochs}",
            text=f"loss {loss:.3f}{self.accuracy}  {self._speed():.0f} images/s  "
            f"{self._time_left(step)} left",
        )

    def epoch(self, row: dict[str, Any], main_metric: str) -> None:
        """Record an epoch in ``metrics.jsonl`` and TensorBoard; print it where no line is live."""
        with files.writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        with files.writing(self.path.parent):
            for name, value in row.items():
                if name.startswith("val_"):
                    self.board.add_scalar(name.replace("_", "/", 1), value, row["step"])
            self.board.flush()
        score = f"{main_metric} {row[f'val_{main_metric}']:.4f}"
        self.accuracy = f"  {score}"
        if self.live.disable:
            self.say(
                f"epoch {row['epoch']}/{self.epochs}  loss {row['train_loss']:.4f}  {score}  "
                f"{row['images_per_second']:.0f} images/s  {self._time_left(row['step'])} left"
            )

    def _speed(self) -> float:
        """Images per second over the recent steps; the first one only starts the clock."""
        if len(self.recent) < 2:
            return 0.0
        seconds = self.recent[-1][0] - self.recent[0][0]
        return sum(images for _, images in list(self.recent)[1:]) / max(seconds, 1e-9)

    def _time_left(self, step: int) -> str:
        """From this session's steps so far, its validations and checkpoints included."""
        if self.clock is None or step <= self.clock[1]:
            return "?"
        start, first = self.clock
        seconds = (time.perf_counter() - start) / (step - first) * (self.total_steps - step)
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """Rows of a run's ``metrics.jsonl``, one an epoch; a line cut short by a crash is left out."""
    path = out / METRICS
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
