from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import pacavit
from pacavit.detectors import DETECTORS
from pacavit.engine.run.log import read_metrics
from pacavit.recipes import Recipe, parse
from pacavit.tasks import TASKS, DetectionTask, InstanceSegmentationTask

MakeTask: TypeAlias = Callable[..., DetectionTask]


def recipe(task: str, detector: str, **options: Any) -> Recipe:
    return parse(
        {
            "name": "tiny",
            "data": {"name": "tiny_objects"},
            "model": {
                "name": "pacavit_nano",
                "num_clusters": [4, 4, 0],
                "options": {"depths": [1, 1, 1]},
            },
            "task": {"name": task, "detector": detector, **options},
            "train": {
                "epochs": 2,
                "batch_size": 4,
                "eval_batch_size": 4,
                "lr": 0.001,
                "device": "cpu",
                "loggers": [],
            },
        },
        "the test's recipe",
    )


@pytest.mark.parametrize(
    ("name", "detector"), [("detection", "tiny"), ("instance_segmentation", "tiny_masks")]
)
def test_a_run_trains_and_is_scored(name: str, detector: str, tmp_path: Path) -> None:
    run = pacavit.engine.train(recipe(name, detector), tmp_path / "run", progress=False)
    rows = read_metrics(run)
    task, losses = TASKS.get(name), DETECTORS.get(detector).loss_names
    assert len(rows) == 2
    for row in rows:
        assert row[f"val_{task.main_metric}"] >= 0
        parts = sum(row[f"train_loss_{loss}"] for loss in losses)
        assert row["train_loss"] == pytest.approx(parts)


def test_the_tasks_are_registered() -> None:
    assert TASKS.get("detection") is DetectionTask
    assert TASKS.get("instance_segmentation") is InstanceSegmentationTask
