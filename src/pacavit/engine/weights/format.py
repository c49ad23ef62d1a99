"""The format of a weights file: tensors, recipe, facts about the data, and scores."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pydantic
from torch import Tensor, nn

from pacavit.data.base import DataInfo
from pacavit.engine import distributed
from pacavit.engine.weights.packaged import packaged_names
from pacavit.errors import CheckpointError, RecipeError
from pacavit.models.convert import name_faults
from pacavit.recipes import io
from pacavit.recipes.schema import MAX_IMAGE_SIZE, Recipe
from pacavit.tasks.classification import Calibration
from pacavit.utils import files
from pacavit.utils.parsing import parse_json
from pacavit.utils.text import first_few, one_line

__all__ = [
    "CHECKPOINTS",
    "HUB",
    "PUBLIC_PREFIXES",
    "TIMM",
    "WEIGHTS",
    "Description",
    "calibrated_bytes",
    "is_ours",
    "is_public",
    "load_state",
    "read_description",
    "save_weights",
    "shape_faults",
    "weights_bytes",
    "weights_metadata",
]

WEIGHTS = "weights.safetensors"
TIMM, HUB = PUBLIC_PREFIXES = ("timm:", "hf-hub:")
"""Beginnings of sources of weights that are the same everywhere."""
CHECKPOINTS = "checkpoints"
_FORMAT_VERSION = 1
_METADATA_KEY = "pacavit"
_INFO = pydantic.TypeAdapter(DataInfo)
_CALIBRATION = pydantic.TypeAdapter(Calibration | None)
_METRICS = pydantic.TypeAdapter(dict[str, float])


@dataclass(frozen=True)
class Description:
    """The metadata of a weights file.

    Attributes:
        recipe: how the network was trained; without folders.
        info: the data it was trained on.
        metrics: validation scores when the weights were written.
        calibration: the temperature of their probabilities; None for 1.
    """

    recipe: Recipe
    info: DataInfo
    metrics: Mapping[str, float]
    calibration: Calibration | None = None


def weights_bytes(
    model: nn.Module,
    recipe: Recipe,
    info: DataInfo,
    metrics: Mapping[str, float],
    *,
    calibration: Calibration | None = None,
    half: bool = False,
) -> bytes:
    """A model's state with recipe, facts about the data and scores, as bytes of a safetensors file.

    Args:
        model: the network; timm can load the file into the same model. If it is sharded, all
            processes have to call this.
        recipe: how it was trained.
        info: the data it was trained on.
        metrics: validation scores.
        calibration: the temperature of its probabilities; None for 1.
        half: store matrices and filters as fp16. Vectors (biases, norms, BatchNorm statistics)
            stay fp32: they are few, and a running variance may exceed the range of fp16.
    """
    state = distributed.whole(model.state_dict())
    if half:
        state = {
            name: value.half() if value.is_floating_point() and value.ndim > 1 else value
            for name, value in state.items()
        }
    return files.tensor_bytes(state, weights_metadata(recipe, info, metrics, calibration))


def weights_metadata(
    recipe: Recipe,
    info: DataInfo,
    metrics: Mapping[str, float],
    calibration: Calibration | None = None,
) -> dict[str, str]:
    """The metadata that ``load_model`` needs in a weights file.

    Args:
        recipe: stored without ``data.root``, and without ``model.init`` unless that is a packaged
            name, because folders do not exist on other machines.
        info: the data it was trained on.
        metrics: validation scores.
        calibration: the temperature of its probabilities; None for 1.
    """
    sections: dict[str, Any] = {"data": recipe.data.model_copy(update={"root": None})}
    if not is_public(recipe.model.init):
        sections["model"] = recipe.model.model_copy(update={"init": None})
    if not is_public(recipe.train.teacher):
        sections["train"] = recipe.train.model_copy(update={"teacher": None})
    description = {
        "version": _FORMAT_VERSION,
        "recipe": recipe.model_copy(update=sections).model_dump(mode="json"),
        "data": asdict(info),
        "metrics": dict(metrics),
    }
    if calibration is not None:
        description["calibration"] = asdict(calibration)
    # A single key, because safetensors writes several in random order, and equal runs shall give
    # equal files.
    return {_METADATA_KEY: json.dumps(description)}


def is_public(source: str | None) -> bool:
    """Whether a source of weights is the same everywhere."""
    source = source or ""
    return source in packaged_names() or source.startswith(PUBLIC_PREFIXES)


def calibrated_bytes(path: Path, calibration: Calibration | None) -> bytes:
    """A weights file with a fitted temperature, as bytes; None leaves it as it is."""
    if calibration is None:
        return path.read_bytes()
    tensors, metadata = files.read_tensors(path)
    found = read_description(metadata, path)
    return files.tensor_bytes(
        tensors, weights_metadata(found.recipe, found.info, found.metrics, calibration)
    )


def save_weights(
    path: Path,
    model: nn.Module,
    recipe: Recipe,
    info: DataInfo,
    metrics: Mapping[str, float],
    *,
    calibration: Calibration | None = None,
    half: bool = False,
) -> None:
    """Write ``weights_bytes`` to a file atomically.

    Raises:
        CheckpointError: the file cannot be written.
    """
    # Outside of ``writing``: an OSError while tensors are gathered is not a failed write.
    content = weights_bytes(model, recipe, info, metrics, calibration=calibration, half=half)
    with files.writing(path):
        files.replace_file(path, content)


def is_ours(metadata: Mapping[str, str]) -> bool:
    """Whether the metadata of a safetensors file are those of a weights file of this package."""
    return _METADATA_KEY in metadata


def read_description(metadata: Mapping[str, str], path: Path) -> Description:
    """The description in the metadata of a weights file, checked against all bounds.

    Args:
        metadata: of the file.
        path: of the file, for error messages.

    Raises:
        CheckpointError: pacavit did not write the file, or its description is broken.
        RecipeError: a field of its recipe is unknown, of a wrong type or out of bounds.
    """
    if not is_ours(metadata):
        raise CheckpointError(
            f"{path} was not written by pacavit: it contains no recipe; give a run folder or "
            "weights that pacavit saved"
        )
    try:
        description = parse_json(metadata[_METADATA_KEY])
        version = description["version"]
        if version != _FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has format version {version!r}, this pacavit reads {_FORMAT_VERSION}; "
                "use the pacavit that wrote it"
            )
        recipe = io.parse(description["recipe"], f"the recipe inside {path}")
        info = _INFO.validate_json(json.dumps(description["data"]))
        metrics = _METRICS.validate_python(description["metrics"])
        calibration = _CALIBRATION.validate_python(description.get("calibration"))
        _check_info(info)
    except (CheckpointError, RecipeError):
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the description inside {path} is broken: {one_line(error)}"
        ) from error
    return Description(recipe, info, metrics, calibration)


def _check_info(info: DataInfo) -> None:
    """Raise ValueError for invalid facts about the data."""
    if not info.class_names:
        raise ValueError("data.class_names is empty")
    if info.image_size is not None and not all(
        0 < side <= MAX_IMAGE_SIZE for side in info.image_size
    ):
        raise ValueError(
            f"data.image_size {info.image_size} must be of 1 to {MAX_IMAGE_SIZE} pixels"
        )
    values = (*info.mean, *info.std)
    if not all(math.isfinite(value) for value in values) or min(info.std) <= 0:
        raise ValueError(
            f"data.mean {info.mean} and data.std {info.std} must be finite, std positive"
        )


def load_state(model: nn.Module, tensors: Mapping[str, Tensor], origin: str | Path) -> None:
    """Copy tensors into a model, all of them and no others.

    Raises:
        CheckpointError: names the first tensors that are missing, unexpected or of another shape.
    """
    own = model.state_dict()
    faults = shape_faults(model, {name: tuple(value.shape) for name, value in tensors.items()})
    if faults:
        raise CheckpointError(f"{origin} does not fit the model: {first_few(faults)}")
    model.load_state_dict(
        {name: distributed.like(value, own[name]) for name, value in tensors.items()}
    )


def shape_faults(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """One line for each tensor that is missing, unexpected or of another shape for a model."""
    own = model.state_dict()
    return name_faults(own, shapes) + [
        f"{name} is {shape} and must be {tuple(own[name].shape)}"
        for name, shape in shapes.items()
        if name in own and shape != tuple(own[name].shape)
    ]
