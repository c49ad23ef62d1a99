"""Check before a run starts that BatchNorm gets more than one value per channel in training."""

from __future__ import annotations

import inspect
import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pacavit.data import DataInfo
from pacavit.errors import RecipeError
from pacavit.heads import SegmentationHead
from pacavit.recipes.schema import Recipe
from pacavit.tasks import Task

__all__ = ["check_batch_norm"]


def check_batch_norm(task: Task, recipe: Recipe, info: DataInfo, processes: int) -> None:
    """Refuse training in which a BatchNorm layer gets one value per channel.

    This happens for a chunk of one image and a map of one pixel. Therefore, if there are such
    chunks and BatchNorm layers, the network is tried on one random image of each training size.
    Modes, running statistics and random generators are unchanged afterwards.

    Args:
        task: built from ``recipe``, on any device.
        recipe: of the run.
        info: of the data to train on.
        processes: number of training processes.

    Raises:
        RecipeError: names the setting to increase.
    """
    layers = [layer for layer in task.model.modules() if isinstance(layer, _BatchNorm)]
    if not layers or _smallest_chunk(recipe, processes) != 1:
        return
    smaller = [size for _, size in recipe.train.progressive or ()]
    for size in (None, *smaller):
        height, width = recipe.task.input_size(info.image_size, size)
        if _gets_single_values(task.model, height, width):
            raise RecipeError(
                f"model {recipe.model.name!r} has BatchNorm layers, which cannot train on one "
                f"{height} x {width} image at a time: {_remedy(recipe, processes)}"
                + _remedy_of_heads(task)
            )


def _smallest_chunk(recipe: Recipe, processes: int) -> int:
    """Number of images in the smallest chunk that a process computes at once."""
    train = recipe.train
    chunks = 1
    if train.micro_batch is not None:
        chunks = math.ceil(math.ceil(train.batch_size / processes) / train.micro_batch)
    return train.batch_size // processes // chunks


def _remedy(recipe: Recipe, processes: int) -> str:
    train = recipe.train
    if train.batch_size // processes > 1:
        return f"raise train.micro_batch {train.micro_batch} or train.batch_size {train.batch_size}"
    remedy = f"raise train.batch_size {train.batch_size}"
    return remedy if processes == 1 else f"{remedy}, or start fewer than {processes} processes"


def _remedy_of_heads(task: Task) -> str:
    """Another remedy, if the head on a pyramid is what has an option for it."""
    head = getattr(task.model, "head", None)
    if (
        not isinstance(head, SegmentationHead)
        or "norm" not in inspect.signature(type(head)).parameters
    ):
        return ""
    return ', or set task.head_options.norm = "group"'


def _gets_single_values(model: nn.Module, height: int, width: int) -> bool:
    """Whether a BatchNorm layer refuses one image of that size in training."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    modes = {module: module.training for module in model.modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            model.train()(torch.randn(1, 3, height, width, device=device))
    except ValueError as error:
        # torch.nn.functional.batch_norm raises a plain ValueError.
        if "more than 1 value per channel" not in str(error):
            raise
        return True
    finally:
        for module, training in modes.items():
            module.training = training
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return False
