"""The log of a run: JSON lines, loggers, and progress on the terminal."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from pacavit.engine.diagnostics import PREFIX
from pacavit.engine.run.loggers import Logger, create_loggers
from pacavit.engine.run.timer import Timer
from pacavit.recipes.schema import Recipe
from pacavit.utils import files
from pacavit.utils.text import one_line

__all__ = ["METRICS", "RunLog", "read_metrics"]

METRICS = "metrics.jsonl"
_MEASURED = 3.0  # seconds of training from which the duration of a run is estimated
_QUIET = 60.0  # seconds without a line, where there is no terminal


class RunLog:
    """Records one session of a run; a context manager.

    Args:
        out: run folder. Rows of ``metrics.jsonl`` beyond ``first_step`` are removed, because the
            session repeats those steps.
        recipe: of the run; names its loggers.
        first_step: number of steps that earlier sessions have completed.
        total_steps: number of steps of the whole run.
        console: where to show progress: a live line on a terminal; otherwise a line for each epoch,
            and one a minute in between. A quiet console shows nothing.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        out: Path,
        recipe: Recipe,
        *,
        first_step: int,
        total_steps: int,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = out / METRICS
        self.first_step, self.total_steps = first_step, total_steps
        self.epochs = recipe.train.epochs
        self.console, self.clock = console, clock
        self.live = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            console=self.console,
            disable=console.quiet or not console.is_terminal,
        )
        self.bar = self.live.add_task("", total=total_steps, completed=first_step, text="")
        self.accuracy = ""
        self.told_duration = False
        self.told_at = clock()
        self.warned: set[str] = set()
        with files.reading(self.path):
            found = read_metrics(out) if self.path.is_file() else None
        with files.writing(self.path):
            # A row may exist even at step 0, because an epoch is logged before it is saved.
            if found is not None:
                rows = [row for row in found if row["step"] <= first_step]
                lines = "".join(json.dumps(row) + "\n" for row in rows)
                files.replace_file(self.path, lines.encode())
            self.loggers = create_loggers(out, recipe, first_step + 1)

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
        # After a failed write, closing fails too; only the first error is reported.
        with suppress(OSError) if error is not None else files.writing(self.path.parent):
            self._each(lambda logger: logger.close(finished=error is None))

    def say(self, text: str) -> None:
        """Print a line, above the live line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a warning; repetitions of the same text are ignored."""
        if text not in self.warned:
            self.warned.add(text)
            self.say(f"warning: {text}")

    def step(self, step: int, loss: float, lr: float, losses: Mapping[str, float]) -> None:
        """Record a training step, counted from 1: the sum of its losses, and each by name."""
        values = {"train/loss": loss}
        if len(losses) > 1:
            values |= {f"train/loss_{name}": value for name, value in losses.items()}
        values["train/lr"] = lr
        with files.writing(self.path.parent):
            self._each(lambda logger: logger.log(values, step))

    def show(self, step: int, epoch: int, loss: float, timer: Timer, batch_size: int) -> None:
        """Update the live line; ``step`` and ``epoch`` count finished ones.

        The expected duration is printed once, when some seconds of training were timed.
        """
        speed = timer.steps_per_second()
        images = "?" if speed is None else f"{speed * batch_size:.0f}"
        left = timer.seconds_left(step)
        current = f"epoch {epoch + 1}/{self.epochs}"
        text = f"loss {loss:.3f}{self.accuracy}  {images} images/s  {_duration(left)} left"
        self.live.update(self.bar, completed=step, description=current, text=text)
        if not self.told_duration and left is not None and timer.step_seconds >= _MEASURED:
            self.told_duration, self.told_at = True, self.clock()
            self.say(
                f"expected: {_minutes(left)} for the remaining {self.total_steps - step:,} steps "
                f"at {images} images/s, without validation"
            )
        elif self.live.disable and self.clock() - self.told_at >= _QUIET:
            self.told_at = self.clock()
            self.say(f"{current}  step {step:,}/{self.total_steps:,}  {text}")

    def epoch(self, row: dict[str, Any], main_metric: str, timer: Timer) -> None:
        """Record an epoch in ``metrics.jsonl`` and loggers; print it without a live line."""
        with files.writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            # A resumed run does not repeat this epoch, so the row must not be lost.
            file.flush()
            os.fsync(file.fileno())
        values = {
            name.replace("_", "/", 1): value
            for name, value in row.items()
            if name.startswith(("val_", PREFIX))
        }
        with files.writing(self.path.parent):
            self._each(lambda logger: logger.log(values, row["step"]))
            self._each(lambda logger: logger.flush())
        score = f"{main_metric} {row[f'val_{main_metric}']:.4f}"
        self.accuracy = f"  {score}"
        if self.live.disable:
            self.told_at = self.clock()
            left = _duration(timer.seconds_left(row["step"]))
            self.say(
                f"epoch {row['epoch']}/{self.epochs}  loss {row['train_loss']:.4f}  {score}  "
                f"{row['images_per_second']:.0f} images/s  {left} left"
            )

    def _each(self, act: Callable[[Logger], None]) -> None:
        """Do something with each logger; one that fails is left out from then on."""
        for logger in tuple(self.loggers):
            try:
                act(logger)
            except Exception as error:
                if logger.local:
                    raise
                self.loggers.remove(logger)
                self.warn(
                    f"{type(logger).__name__} failed and logs no more: {one_line(error, kind=True)}"
                )


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """Rows of a run's ``metrics.jsonl``, one per epoch; a line truncated by a crash is ignored."""
    path = out / METRICS
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _minutes(seconds: float) -> str:
    """A duration in words, of two digits."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 600 else f"{seconds / 60:,.0f} min"


def _duration(seconds: float | None) -> str:
    """A duration as on a clock; "?" for None."""
    if seconds is None:
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
