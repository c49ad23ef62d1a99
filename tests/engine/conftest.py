"""Recipes of runs that take about a second."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from pacavit import load_plugin
from pacavit.data import Batch
from pacavit.recipes import Recipe, parse
from pacavit.tasks import ClassificationTask

load_plugin(Path(__file__).with_name("tiny.py"))

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def make_recipe() -> MakeRecipe:
    """A recipe of 3 epochs x 5 steps; keyword arguments replace fields of its train section."""

    def make(model: dict[str, Any] | None = None, **train: Any) -> Recipe:
        defaults = {"epochs": 3, "batch_size": 10, "lr": 0.02, "ema": 0.9, "device": "cpu"}
        return parse(
            {
                "name": "tiny",
                "task": {"augment": {"flip": "random", "shift": 1}},
                "data": {"name": "tiny-stripes"},
                "model": {"name": "tiny_net", **(model or {})},
                "train": defaults | train,
            },
            "the test's recipe",
        )

    return make


StopAt = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> StopAt:
    """Within the context, a run is asked to stop in the middle of a training step, once."""

    @contextmanager
    def stopping(step: int) -> Iterator[None]:
        forward, count = ClassificationTask.forward, 0

        def counting(self: ClassificationTask, batch: Batch) -> dict[str, Tensor]:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return forward(self, batch)

        with monkeypatch.context() as patch:
            patch.setattr(ClassificationTask, "forward", counting)
            yield

    return stopping


@pytest.fixture
def finished(make_recipe: MakeRecipe, tmp_path: Path) -> Path:
    """The folder of a finished run."""
    from pacavit.engine import train

    return train(make_recipe(), tmp_path / "finished", progress=False)
