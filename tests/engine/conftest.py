"""Recipes of runs that take about a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pacavit import load_plugin
from pacavit.recipes import Recipe, parse

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


@pytest.fixture
def finished(make_recipe: MakeRecipe, tmp_path: Path) -> Path:
    """The folder of a finished run."""
    from pacavit.engine import train

    return train(make_recipe(), tmp_path / "finished", progress=False)
