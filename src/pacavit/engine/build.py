"""Build data, model, task and loaders from a recipe."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import timm
import torch
from torch import nn

from pacavit.data import (
    DATASETS,
    DataInfo,
    DataSource,
    ImageSet,
    Loader,
    Preprocess,
    Split,
    available_cores,
    check_options,
)
from pacavit.errors import PacavitError, RecipeError, UnknownNameError
from pacavit.layers import evaluation_mode
from pacavit.models import Pyramid, build_pyramid
from pacavit.recipes.options import FORBIDDEN_OPTIONS
from pacavit.recipes.schema import ModelConfig, Recipe
from pacavit.tasks import TASKS, Task
from pacavit.utils.refusals import REFUSALS
from pacavit.utils.registry import Plugin, plugins_of
from pacavit.utils.text import one_line

__all__ = [
    "Networks",
    "check",
    "data_source",
    "enlarged",
    "eval_loader",
    "eval_preprocess",
    "image_set",
    "model",
    "num_chunks",
    "plugins",
    "task",
    "train_loader",
]

_Network = TypeVar("_Network", bound=nn.Module)


def data_source(
    recipe: Recipe,
    root: Path | None = None,
    trained_on: DataInfo | None = None,
    evaluated: Split | None = None,
) -> DataSource:
    """The data set of a recipe, with the targets that its task learns from; loads no images yet.

    Args:
        recipe: names the data set and the task.
        root: folder with the data, instead of the recipe's.
        trained_on: data facts of the trained model that the data are for; None: the data are for
            training. Gives the classes to sources that otherwise find out what they hold, and the
            size of the stored images.
        evaluated: the only split that will be loaded, for a trained model; the recipe's sizes of
            splits need not fit the others.

    Raises:
        UnknownNameError: no data set has that name, or it has no such option.
        RecipeError: the data set has no targets for the task, or an option has another type or is
            out of range.
        DataError: the data set does not accept this folder or validation size.
    """
    config, wanted = recipe.data, TASKS.get(recipe.task.name).target
    kind = DATASETS.get(config.name)
    if wanted not in kind.targets:
        able = [name for name in TASKS if TASKS.get(name).target in kind.targets]
        raise RecipeError(
            f"data set {config.name!r} has no targets for the task {recipe.task.name!r}; choose "
            f"another data set, or task.name among: {', '.join(able)}"
        )
    fixed: dict[str, Any] = {"val_size": config.val_size}
    if len(kind.targets) > 1:
        fixed["target"] = wanted
    options = check_options(kind, config.options)
    parameters = inspect.signature(kind).parameters
    if "evaluated" in parameters:
        fixed["evaluated"] = evaluated
    if trained_on is not None and "classes" in parameters:
        options["classes"] = trained_on.class_names
        if trained_on.masks is not None and "values" in parameters:
            options["values"] = trained_on.masks.values
        if trained_on.objects is not None and "category_ids" in parameters:
            options["category_ids"] = trained_on.objects.category_ids
    if "image_size" in parameters:
        size = recipe.task.image_size if trained_on is None else trained_on.image_size[0]
        if size is not None:
            options.setdefault("image_size", size)
    if "in_memory" in parameters and _crops(recipe):
        options.setdefault("in_memory", False)
    return DATASETS.create(config.name, root or config.root, options=options, **fixed)


def image_set(source: DataSource, split: Split, device: torch.device) -> ImageSet:
    """A split whose batches are on a device."""
    return source.load(split).to(device)


class Networks:
    """Builds the network of a recipe, as classifier or as pyramid; randomly initialized.

    Args:
        config: the ``[model]`` section; its ``init`` is ignored here.

    Raises, in both methods:
        UnknownNameError: timm has no such model.
        RecipeError: the model refuses an argument, or ``options`` holds one that a recipe may not
            give.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.config = config

    def __call__(self, *, num_classes: int) -> nn.Module:
        """The timm model with a head of ``num_classes`` outputs."""
        return self._build(timm.create_model, {"num_classes": num_classes})

    def pyramid(self, stages: Sequence[int] | None = None) -> Pyramid:
        """The timm model without its classifier, as the maps of some stages; None: of all.

        Raises:
            RecipeError: the model has no maps, or no such map.
        """
        return self._build(partial(build_pyramid, stages=stages), {})

    def _build(self, make: Callable[..., _Network], fixed: dict[str, Any]) -> _Network:
        config = self.config
        if not timm.is_model(config.name):
            raise UnknownNameError("model", config.name, timm.list_models())
        arguments = config.model_dump(
            exclude={"name", "drop_path", "init", "options"}, exclude_none=True
        )
        try:
            return make(
                config.name,
                in_chans=3,
                drop_path_rate=config.drop_path,
                **fixed,
                **_with_options(arguments, config.options),
            )
        except PacavitError:
            raise
        except REFUSALS as error:
            culprits = f", above all model.options ({', '.join(config.options)})"
            raise RecipeError(
                f"model {config.name!r} refuses its arguments: {_line(error)}; "
                f"check the fields of model{culprits if config.options else ''}"
            ) from error


def model(config: ModelConfig, num_classes: int) -> nn.Module:
    """The classifier of a recipe, see ``Networks``."""
    return Networks(config)(num_classes=num_classes)


def task(recipe: Recipe, info: DataInfo) -> Task:
    """The task around its network, with convolution weights laid out channels-last."""
    built = TASKS.get(recipe.task.name).build(recipe.task, info, Networks(recipe.model))
    return built.to(memory_format=torch.channels_last)


def enlarged(recipe: Recipe, info: DataInfo) -> str | None:
    """A line for the log if stored images are smaller than the network's input; else None."""
    size, stored = recipe.task.image_size, info.image_size
    if size is None or _crops(recipe) or size <= min(stored):
        return None
    remedy = "; leave data.options.image_size out to store them in full size"
    resized = getattr(recipe.task, "resized", None)  # keeps the aspect ratio
    height, width = (size, size) if resized is None else resized(stored)
    return (
        f"images are stored with {stored[1]} x {stored[0]} pixels and enlarged to "
        f"{width} x {height}" + (remedy if "image_size" in recipe.data.options else "")
    )


def plugins(task: Task, recipe: Recipe) -> list[Plugin]:
    """The loaded plug-ins that a task or the data set of its recipe comes from."""
    classes = {type(module) for module in task.modules()}
    return plugins_of([*classes, DATASETS.get(recipe.data.name)])


def check(task: Task, recipe: Recipe, info: DataInfo) -> None:
    """Try a task on two random images of each training size, to find errors before training.

    Modes, running statistics and random generators are unchanged afterwards.

    Args:
        task: built from ``recipe``, on any device.
        recipe: of the run; image sizes that it does not set are those of the data.
        info: of the data to train on.

    Raises:
        RecipeError: the network fails, its output is not what the task needs, or options of task
            and data exclude each other.
    """
    if _crops(recipe) and recipe.data.options.get("in_memory") is True:
        raise RecipeError(
            "task.crop needs whole images, and data.options.in_memory=true keeps small copies: "
            "leave one of them out"
        )
    smaller = [size for _, size in recipe.train.progressive or ()]
    device = next((parameter.device for parameter in task.parameters()), torch.device("cpu"))
    try:
        with evaluation_mode(task), torch.no_grad():
            for size in (None, *smaller):
                height, width = recipe.task.input_size(info.image_size, size)
                # Raises RecipeError if the images are too small for an augmentation.
                task.preprocess(recipe.task, info, training=True, image_size=size)
                # Networks may draw random numbers in evaluation mode too.
                with torch.random.fork_rng([device] if device.type == "cuda" else []):
                    task.check(torch.randn(2, 3, height, width, device=device))
    except PacavitError:
        raise
    except REFUSALS as error:
        raise RecipeError(
            f"model {recipe.model.name!r} fails on {height} x {width} images: {_line(error)}; "
            "check task.image_size and the fields of model"
        ) from error


def train_loader(
    recipe: Recipe,
    images: ImageSet,
    info: DataInfo,
    image_size: int | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Loader:
    """Shuffled, augmented batches.

    Args:
        recipe: of the run.
        images: the training split.
        info: of their data.
        image_size: replaces the task's own, for epochs with smaller images.
        shard: of each batch, for this process: (rank, number of processes).
    """
    train = recipe.train
    if len(images) < train.batch_size:
        raise RecipeError(
            f"train.batch_size {train.batch_size} is more than the {len(images)} training images"
        )
    return Loader(
        images,
        train.batch_size,
        TASKS.get(recipe.task.name).preprocess(
            recipe.task, info, training=True, image_size=image_size, epochs=train.epochs
        ),
        shuffle=True,
        drop_last=True,
        seed=train.seed,
        num_workers=_num_workers(recipe, images),
        shard=shard,
    )


def eval_loader(
    recipe: Recipe,
    images: ImageSet,
    info: DataInfo,
    shard: tuple[int, int] = (0, 1),
    *,
    shuffle: bool = False,
    preprocess: Preprocess | None = None,
) -> Loader:
    """Batches without augmentation.

    Args:
        recipe: of the run.
        images: any split of any data with the classes of ``info``.
        info: of the data the model was trained on.
        shard: of each batch, for this process: (rank, number of processes).
        shuffle: in a fixed random order; else in stored order.
        preprocess: from stored images to the network; None: that of the recipe.
    """
    return Loader(
        images,
        recipe.train.eval_batch_size,
        preprocess or eval_preprocess(recipe, info),
        shuffle=shuffle,
        drop_last=False,
        seed=0,
        num_workers=_num_workers(recipe, images),
        shard=shard,
    )


def num_chunks(loader: Loader, micro_batch: int | None) -> int:
    """The number of chunks into which every process splits its shard of a batch.

    It is the same for all processes, because those of a sharded network compute together.

    Raises:
        RecipeError: the smallest shard has fewer images than chunks.
    """
    if micro_batch is None:
        return 1
    largest, smallest = loader.shard_sizes
    chunks = math.ceil(largest / micro_batch)
    if chunks > smallest:
        raise RecipeError(
            f"train.micro_batch {micro_batch} splits {largest} images into {chunks} chunks, "
            f"and one process has only {smallest}; raise it, or choose a train.batch_size that "
            "is a multiple of the number of processes"
        )
    return chunks


def eval_preprocess(recipe: Recipe, info: DataInfo) -> Preprocess:
    """The path from stored images to a trained network, without augmentation."""
    return TASKS.get(recipe.task.name).preprocess(recipe.task, info, training=False)


def _crops(recipe: Recipe) -> bool:
    """Whether the task cuts its own parts out of images of any size."""
    return getattr(recipe.task, "crop", None) is not None


def _num_workers(recipe: Recipe, images: ImageSet) -> int:
    """Processes that read the images; those in memory need none."""
    if not images.in_files:
        return 0
    wanted = recipe.data.num_workers
    return available_cores() if wanted is None else wanted


def _with_options(arguments: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    forbidden = FORBIDDEN_OPTIONS & options.keys()
    if forbidden:
        raise RecipeError(
            f"model.options may not hold {', '.join(sorted(forbidden))}; leave it out: "
            "a recipe's model starts from random weights, or from those of model.init"
        )
    taken = {*arguments, "num_classes", "in_chans", "drop_path_rate"} & options.keys()
    if taken:
        raise RecipeError(
            f"model.options repeats {', '.join(sorted(taken))}; use model's own field"
        )
    return arguments | options


def _line(error: Exception) -> str:
    """The class and the message of an error, on one line without a full stop."""
    return one_line(error, kind=True).rstrip(".")
