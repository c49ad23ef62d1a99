"""From a recipe to objects: the one place that knows both sides."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

import pacavit.models  # noqa: F401 (registers the models with timm)
from pacavit.data import DATASETS, DataInfo, DataSource, ImageSet, Loader, Split
from pacavit.errors import PacavitError, RecipeError, UnknownNameError
from pacavit.recipes.schema import DataConfig, ModelConfig, Recipe
from pacavit.tasks import TASKS, Task

__all__ = ["data_source", "eval_loader", "image_set", "model", "task", "train_loader"]


def data_source(config: DataConfig) -> DataSource:
    """The data set of a recipe; loads no images yet.

    Raises:
        UnknownNameError: no data set has that name.
        DataError: it takes no such folder or size.
    """
    return DATASETS.get(config.name)(config.root, val_size=config.val_size)


def image_set(source: DataSource, split: Split, device: torch.device) -> ImageSet:
    """One split with its batches on a device."""
    return source.load(split).to(device)


def model(config: ModelConfig, num_classes: int) -> nn.Module:
    """The timm model of that name, randomly initialised.

    Raises:
        UnknownNameError: timm has no such model.
        RecipeError: the model refuses an argument.
    """
    if not timm.is_model(config.name):
        raise UnknownNameError("model", config.name, timm.list_models("pacavit_*"))
    arguments = config.model_dump(exclude={"name", "drop_path", "options"}, exclude_none=True)
    try:
        network: nn.Module = timm.create_model(
            config.name,
            num_classes=num_classes,
            in_chans=3,
            drop_path_rate=config.drop_path,
            **_without_repeats(arguments, config.options),
        )
    except PacavitError:
        raise
    except (TypeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise RecipeError(f"model {config.name!r} refuses its arguments: {line}") from error
    return network


def task(recipe: Recipe, num_classes: int) -> Task:
    """The task around its model, with convolution weights laid out channels-last."""
    network = model(recipe.model, num_classes).to(memory_format=torch.channels_last)
    # Every task takes the same three arguments; the base class leaves constructors open.
    kind: Any = TASKS.get(recipe.task.name)
    built: Task = kind(network, recipe.task, num_classes)
    return built


def train_loader(
    recipe: Recipe, images: ImageSet, info: DataInfo, image_size: int | None = None
) -> Loader:
    """Shuffled, augmented batches; ``image_size`` replaces the task's own for a while."""
    train = recipe.train
    if len(images) < train.batch_size:
        raise RecipeError(
            f"train.batch_size {train.batch_size} is more than the {len(images)} training images"
        )
    transform = TASKS.get(recipe.task.name).train_transform(recipe.task, info, image_size)
    return Loader(
        images, train.batch_size, transform, shuffle=True, drop_last=True, seed=train.seed
    )


def eval_loader(recipe: Recipe, images: ImageSet, info: DataInfo) -> Loader:
    """Batches in stored order, without augmentation.

    Args:
        recipe: gives image size and batch size.
        images: any split of any data with the classes of ``info``.
        info: of the data the model was trained on.
    """
    transform = TASKS.get(recipe.task.name).eval_transform(info, recipe.task.image_size)
    size = recipe.train.eval_batch_size
    return Loader(images, size, transform, shuffle=False, drop_last=False, seed=0)


def _without_repeats(arguments: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    taken = {*arguments, "num_classes", "in_chans", "drop_path_rate"} & options.keys()
    if taken:
        raise RecipeError(
            f"model.options repeats {', '.join(sorted(taken))}; use model's own field"
        )
    return arguments | options
