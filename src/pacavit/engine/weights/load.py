"""Self-contained weights: a safetensors file that knows its recipe, its data and its scores."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pydantic
import torch
from torch import Tensor, nn

from pacavit.data.base import DataInfo
from pacavit.engine import build, distributed
from pacavit.errors import CheckpointError, UnknownNameError
from pacavit.models.convert import name_faults
from pacavit.recipes import io
from pacavit.recipes.schema import Recipe
from pacavit.tasks import ClassificationTask, Task
from pacavit.utils import files
from pacavit.utils.text import first_few, one_line

__all__ = [
    "CHECKPOINTS",
    "METADATA_KEY",
    "WEIGHTS",
    "LoadedModel",
    "best_weights",
    "load_model",
    "load_state",
    "packaged_names",
    "save_weights",
    "weights_bytes",
    "weights_metadata",
]

WEIGHTS = "weights.safetensors"
CHECKPOINTS = "checkpoints"
FORMAT_VERSION = 1
METADATA_KEY = "pacavit"
_INFO = pydantic.TypeAdapter(DataInfo)
_METRICS = pydantic.TypeAdapter(dict[str, float])


@dataclass(frozen=True)
class LoadedModel:
    """A trained network with what is needed to use it.

    Attributes:
        task: on the CPU, in evaluation mode.
        recipe: how it was trained; folders are only named if it came from a run folder.
        info: the data it was trained on: class names, mean, standard deviation.
        metrics: validation scores when the weights were written.
        path: the file the weights came from.
    """

    task: Task
    recipe: Recipe
    info: DataInfo
    metrics: Mapping[str, float]
    path: Path

    @property
    def classifier(self) -> ClassificationTask:
        """The task of a model that classifies; raises CheckpointError for any other."""
        if not isinstance(self.task, ClassificationTask):
            raise CheckpointError(
                f"{self.path} is no classifier, it learned the task {self.recipe.task.name!r}; "
                "evaluate and predict need one"
            )
        return self.task


def weights_bytes(
    model: nn.Module,
    recipe: Recipe,
    info: DataInfo,
    metrics: Mapping[str, float],
    *,
    half: bool = False,
) -> bytes:
    """A model's state with recipe, data facts and scores, as the bytes of a safetensors file.

    Args:
        model: the network; timm can load the file into its like. If it is sharded, all processes
            have to call this.
        recipe: how it was trained.
        info: the data it was trained on.
        metrics: validation scores.
        half: store matrices and filters as fp16. Vectors (biases, norms, BatchNorm statistics)
            stay fp32: they are few, and a running variance may exceed what fp16 can hold.
    """
    state = distributed.whole(model.state_dict())
    if half:
        state = {
            name: value.half() if value.is_floating_point() and value.ndim > 1 else value
            for name, value in state.items()
        }
    return files.tensor_bytes(state, weights_metadata(recipe, info, metrics))


def weights_metadata(
    recipe: Recipe, info: DataInfo, metrics: Mapping[str, float]
) -> dict[str, str]:
    """What stands beside the tensors in a weights file, so that ``load_model`` can use it.

    Args:
        recipe: stored without ``data.root``, and without ``model.init`` unless that is a packaged
            name: weights travel, folders do not.
        info: the data it was trained on.
        metrics: validation scores.
    """
    sections: dict[str, Any] = {"data": recipe.data.model_copy(update={"root": None})}
    if recipe.model.init not in packaged_names():
        sections["model"] = recipe.model.model_copy(update={"init": None})
    description = {
        "version": FORMAT_VERSION,
        "recipe": recipe.model_copy(update=sections).model_dump(mode="json"),
        "data": asdict(info),
        "metrics": dict(metrics),
    }
    # One key only: safetensors writes several in random order, and equal runs shall give equal
    # files.
    return {METADATA_KEY: json.dumps(description)}


def save_weights(
    path: Path,
    model: nn.Module,
    recipe: Recipe,
    info: DataInfo,
    metrics: Mapping[str, float],
    *,
    half: bool = False,
) -> None:
    """Write ``weights_bytes`` to a file, which appears whole or not at all.

    Raises:
        CheckpointError: the file cannot be written.
    """
    content = weights_bytes(model, recipe, info, metrics, half=half)
    with files.writing(path):
        files.replace_file(path, content)


def packaged_names() -> tuple[str, ...]:
    """Names of the weights that come with the package, sorted."""
    return tuple(sorted(file.name.removesuffix(".safetensors") for file in _packaged()))


def load_model(source: str | Path) -> LoadedModel:
    """A trained network, ready to use.

    Args:
        source: a run folder (of an unfinished run, its newest checkpoint), a folder that
            ``save_pretrained`` wrote, ``hf-hub:USER/NAME`` for such a folder on the Hugging Face
            hub, a weights file, or the name of packaged weights, which win over a folder of that
            name (``./NAME``). Half-precision weights become fp32.

    Raises:
        UnknownNameError: no packaged weights have that name.
        CheckpointError: the file is missing, truncated, foreign or does not fit its own recipe.
        RecipeError: no model can be built, or may be built, from the recipe inside.
    """
    if isinstance(source, str) and source in packaged_names():
        packaged = resources.files("pacavit") / "weights" / f"{source}.safetensors"
        with resources.as_file(packaged) as file:
            return _load_file(file)
    from pacavit.engine.weights import hub  # it loads tensors by means of this module

    path = hub.fetch(source) if str(source).startswith(hub.PREFIX) else Path(source)
    if (path / hub.CONFIG).is_file():
        return _load_file(path / hub.WEIGHTS)
    if path.is_dir():
        loaded = _load_file(_newest_weights(path))
        recipe = io.load(path)
        return LoadedModel(loaded.task, recipe, loaded.info, loaded.metrics, loaded.path)
    if path.is_file():
        return _load_file(path)
    name = str(source)
    if isinstance(source, Path) or os.sep in name or name.endswith(".safetensors"):
        raise CheckpointError(f"no run folder or weights file at {path}")
    raise UnknownNameError("run folder, weights file or packaged weights", name, packaged_names())


def best_weights(checkpoint: Path) -> Path:
    """The weights file of a checkpoint to use: the averaged ones if there are any."""
    average = checkpoint / "ema.safetensors"
    return average if average.is_file() else checkpoint / "model.safetensors"


def load_state(model: nn.Module, tensors: Mapping[str, Tensor], origin: str | Path) -> None:
    """Copy tensors into a model, all of them and no others.

    Raises:
        CheckpointError: naming the first tensors that are missing, left over or misshapen.
    """
    own = model.state_dict()
    faults = name_faults(own, tensors)
    faults += [
        f"{name} is {tuple(value.shape)} and must be {tuple(own[name].shape)}"
        for name, value in tensors.items()
        if name in own and value.shape != own[name].shape
    ]
    if faults:
        raise CheckpointError(f"{origin} does not fit the model: {first_few(faults)}")
    model.load_state_dict(
        {name: distributed.like(value, own[name]) for name, value in tensors.items()}
    )


def _packaged() -> Iterator[Any]:
    folder = resources.files("pacavit") / "weights"
    if folder.is_dir():
        yield from (file for file in folder.iterdir() if file.name.endswith(".safetensors"))


def _newest_weights(run: Path) -> Path:
    from pacavit.engine.weights.checkpoint import (
        newest,  # checkpoints are written by means of this module
    )

    if not (run / io.RECIPE_FILE).is_file():
        raise CheckpointError(f"{run} is no run folder: it holds no {io.RECIPE_FILE}")
    if (run / WEIGHTS).is_file():
        return run / WEIGHTS
    checkpoint = newest(run / CHECKPOINTS)
    if checkpoint is None:
        raise CheckpointError(f"the run in {run} has no checkpoint yet; train it for longer")
    return best_weights(checkpoint)


def _load_file(path: Path) -> LoadedModel:
    tensors, metadata = files.read_tensors(path)
    if METADATA_KEY not in metadata:
        raise CheckpointError(
            f"{path} was not written by pacavit: it names no recipe; give a run folder or weights "
            "that pacavit saved"
        )
    try:
        description = json.loads(metadata[METADATA_KEY])
        version = description["version"]
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has format version {version}, this pacavit reads {FORMAT_VERSION}; "
                "use the pacavit that wrote it"
            )
        recipe = io.parse(description["recipe"], "its recipe")
        info = _INFO.validate_json(json.dumps(description["data"]))
        metrics = _METRICS.validate_python(description["metrics"])
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the description inside {path} is broken: {one_line(error)}"
        ) from error
    # Building draws random weights, which are overwritten: the caller's generator shall not move.
    with torch.random.fork_rng(devices=[]):
        task = build.task(recipe, len(info.class_names))
    load_state(task.model, tensors, path)
    return LoadedModel(task.eval(), recipe, info, metrics, path)
