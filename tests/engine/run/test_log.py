from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from pacavit import recipes
from pacavit.engine.run.log import METRICS, RunLog, read_metrics
from pacavit.engine.run.timer import Timer


def open_log(out: Path, first_step: int = 0, console: Console | None = None) -> RunLog:
    return RunLog(
        out,
        recipes.load("digits", ["train.epochs=2"]),
        first_step=first_step,
        total_steps=4,
        console=console or Console(quiet=True),
    )


def steady_timer(steps: int) -> Timer:
    """After so many steps of half a second, two an epoch."""
    seconds = iter(range(100))
    timer = Timer([1.0, 1.0], 2, lambda: next(seconds) / 2)
    for _ in range(steps):
        timer.lap(1, 0)
    return timer


def tell(log: RunLog, epoch: int) -> None:
    """Two steps and the end of an epoch, counted from 1."""
    for step in (2 * epoch - 1, 2 * epoch):
        log.step(step, loss=1.25, lr=0.1, losses={"loss": 1.25})
    row: dict[str, Any] = {
        "epoch": epoch,
        "step": 2 * epoch,
        "train_loss": 1.25,
        "images_per_second": 100.0,
        "val_loss": 0.75,
        "val_accuracy": 0.5,
    }
    log.epoch(row, "accuracy", steady_timer(4))


def test_a_terminal_shows_how_the_run_goes(tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with open_log(tmp_path, console=console) as log:
        tell(log, 1)
        log.show(3, 1, loss=1.125, timer=steady_timer(4), batch_size=10)
        log.live.refresh()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    for part in ("epoch 2/2", "loss 1.125", "accuracy 0.5000", "20 images/s  0:00 left"):
        assert part in text


def test_unknown_speed_and_time_are_question_marks(tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with open_log(tmp_path, console=console) as log:
        log.show(1, 0, loss=1.125, timer=steady_timer(1), batch_size=10)
        log.live.refresh()
    assert "? images/s  ? left" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())


def test_tensorboard_shows_repeated_steps_once(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        tell(log, 1)
        tell(log, 2)
    with open_log(tmp_path, first_step=2) as log:
        tell(log, 2)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert set(board.Tags()["scalars"]) == {"train/loss", "train/lr", "val/loss", "val/accuracy"}
    assert [event.step for event in board.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [(event.step, event.value) for event in board.Scalars("val/accuracy")] == [
        (2, 0.5),
        (4, 0.5),
    ]


def test_each_of_several_losses_is_logged(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        for step in (1, 2):
            log.step(step, loss=1.25, lr=0.1, losses={"boxes": 1.0, "classes": 0.25})
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    names = {"train/loss", "train/loss_boxes", "train/loss_classes", "train/lr"}
    assert set(board.Tags()["scalars"]) == names
    assert [event.value for event in board.Scalars("train/loss_boxes")] == [1.0, 1.0]
    assert [event.step for event in board.Scalars("train/loss_classes")] == [1, 2]


def test_a_torn_last_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        tell(log, 1)
    path = tmp_path / METRICS
    path.write_text(path.read_text() + '{"epoch": 2, "st')
    with open_log(tmp_path, first_step=2) as log:
        tell(log, 2)
    assert [row["epoch"] for row in read_metrics(tmp_path)] == [1, 2]
    path.write_text('{"epoch": 1, "st')
    with open_log(tmp_path) as log:
        tell(log, 1)
    assert [row["epoch"] for row in read_metrics(tmp_path)] == [1]


def test_a_file_gets_the_expected_duration_and_a_line_a_minute(tmp_path: Path) -> None:
    out = io.StringIO()
    now = 0.0
    seconds = iter(range(100))
    timer = Timer([1.0], 100, lambda: 10.0 * next(seconds))  # ten seconds a step
    with RunLog(
        tmp_path,
        recipes.load("digits", ["train.epochs=1"]),
        first_step=0,
        total_steps=100,
        console=Console(file=out, width=200),
        clock=lambda: now,
    ) as log:
        for step in range(1, 13):
            timer.lap(1, 0)
            now += 10
            log.show(step, 0, loss=1.5, timer=timer, batch_size=20)
    first, second = out.getvalue().splitlines()
    # The first three steps are not timed.
    assert first == "expected: 16 min for the remaining 96 steps at 2 images/s, without validation"
    assert second == "epoch 1/1  step 10/100  loss 1.500  2 images/s  15:00 left"
