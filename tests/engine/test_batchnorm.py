from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pacavit import recipes
from pacavit.data import DataInfo
from pacavit.engine import build
from pacavit.engine.batchnorm import check_batch_norm
from pacavit.errors import RecipeError
from pacavit.recipes import Recipe
from pacavit.tasks import Task

INFO = build.data_source(recipes.load("digits")).info


def made(*changes: str, model: str = "resnet18") -> tuple[Task, Recipe, DataInfo]:
    recipe = recipes.load(
        "digits",
        [
            f"model.name={model}",
            "model.clustering=null",
            "model.num_clusters=null",
            *changes,
        ],
    )
    return build.task(recipe, INFO), recipe, INFO


@pytest.mark.parametrize(
    ("changes", "processes", "remedy"),
    [
        (["train.batch_size=1"], 1, "raise train.batch_size 1$"),
        (["train.batch_size=3"], 2, "raise train.batch_size 3, or start fewer than 2 processes"),
        (["train.batch_size=8", "train.micro_batch=1"], 1, "raise train.micro_batch 1 or"),
        (["train.batch_size=3", "train.micro_batch=2"], 1, "raise train.micro_batch 2 or"),
    ],
)
def test_one_image_and_a_map_of_one_pixel_are_refused(
    changes: list[str], processes: int, remedy: str
) -> None:
    task, recipe, info = made(*changes)
    state = {name: value.clone() for name, value in task.state_dict().items()}
    generator = torch.get_rng_state()
    with pytest.raises(RecipeError, match=f"one 32 x 32 image at a time: {remedy}") as caught:
        check_batch_norm(task, recipe, info, processes)
    assert "\n" not in str(caught.value)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, state[name]) for name, value in task.state_dict().items())
    assert task.training


@pytest.mark.parametrize(
    "setting",
    [
        lambda: made("train.batch_size=2"),
        lambda: made("train.batch_size=4", "train.micro_batch=2"),
        lambda: made("train.batch_size=1", "task.image_size=64"),  # the last map has 2 x 2 pixels
        lambda: made("train.batch_size=1", model="pacavit_nano"),  # has no BatchNorm
    ],
)
def test_networks_that_can_train_are_accepted(
    setting: Callable[[], tuple[Task, Recipe, DataInfo]],
) -> None:
    task, recipe, info = setting()
    check_batch_norm(task, recipe, info, 1)


def test_every_size_of_progressive_training_is_tried() -> None:
    changes = ("train.batch_size=1", "task.image_size=64", "train.progressive=[[0.5,32]]")
    with pytest.raises(RecipeError, match="one 32 x 32 image"):
        check_batch_norm(*made(*changes), 1)


def segmenter(**options: Any) -> tuple[Task, Recipe, DataInfo]:
    recipe = recipes.parse(
        {
            "name": "test",
            "task": {
                "name": "segmentation",
                "image_size": 64,
                "head": "upernet",
                "head_options": {"channels": 8} | options,
            },
            "data": {"name": "shapes"},
            "model": {"name": "pacavit_nano"},
            "train": {"epochs": 1, "batch_size": 1, "lr": 0.01},
        },
        "the test",
    )
    return build.task(recipe, INFO), recipe, INFO


def test_heads_that_pool_to_one_pixel_say_what_to_do() -> None:
    with pytest.raises(
        RecipeError, match=r"batch_size 1, or set task\.head_options\.norm = \"group\"$"
    ):
        check_batch_norm(*segmenter(), 1)
    check_batch_norm(*segmenter(norm="group"), 1)
