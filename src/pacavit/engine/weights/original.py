"""Convert checkpoints of the original PaCa-ViT code into weights files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, ImageNetInfo

from pacavit.data.base import DataInfo
from pacavit.data.sources.imagenet import describe_synsets
from pacavit.engine import build
from pacavit.engine.weights.format import save_weights
from pacavit.engine.weights.torch_file import read_torch_file
from pacavit.errors import CheckpointError, PacavitError, UnknownNameError
from pacavit.models.convert import convert_state_dict, recognize
from pacavit.models.variants import ORIGINALS
from pacavit.recipes import io
from pacavit.recipes.schema import ModelConfig, Recipe

__all__ = ["Conversion", "convert_checkpoint"]

_IMAGENET_CLASSES = 1000
_IMAGE_SIZE = 224
_PUBLISHED = "imagenet_tiny"  # recipe with which all original classifiers were trained


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion. Weights have this package's names, if it has names for them.

    Attributes:
        path: the weights file that was written.
        original: the original name of the model, None if it is not one of the original models.
        model: name of the model in this package.
        settings: keyword arguments in which it differs from the defaults of that model.
        loaded: weights that were copied.
        reinitialised: weights of the model that the checkpoint lacks, or has with another shape;
            they are randomly initialized.
        unexpected: weights of the checkpoint that the model does not have.
    """

    path: Path
    original: str | None
    model: str
    settings: Mapping[str, Any]
    loaded: tuple[str, ...]
    reinitialised: tuple[str, ...]
    unexpected: tuple[str, ...]


def convert_checkpoint(
    official: Path, out: Path, *, model: str | None = None, overwrite: bool = False
) -> Conversion:
    """Convert an original checkpoint into a weights file that all commands take.

    Args:
        official: file of ``torch.save``; nothing in it is executed.
        out: weights file to write; its name must end in ``.safetensors``.
        model: the original name of the model; None infers it from the shapes of the weights.
        overwrite: replace the file ``out``.

    Raises:
        UnknownNameError: no original model has that name.
        CheckpointError: ``official`` is missing, broken or no PaCa-ViT, no weight fits the model,
            or ``out`` exists or cannot be written.
    """
    if model is not None and model not in ORIGINALS:
        raise UnknownNameError("original model", model, ORIGINALS)
    if out.suffix != ".safetensors":
        raise CheckpointError(f"the name of the weights file {out} must end in .safetensors")
    if out.is_dir() or (out.exists() and not overwrite):
        raise CheckpointError(f"{out} exists; give another name, or --overwrite to replace a file")
    try:
        weights = convert_state_dict(read_torch_file(official))
        original, name, settings = _named(model) if model else recognize(weights)
        recipe = _recipe(original, name, settings)
        num_classes = len(weights["head.weight"]) if "head.weight" in weights else _IMAGENET_CLASSES
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # random weights are the same in every conversion
            network = build.model(recipe.model, num_classes)
    except PacavitError as error:
        raise CheckpointError(f"{official}: {error}") from error
    own = network.state_dict()
    fitting = {
        key: value for key, value in weights.items() if key in own and value.shape == own[key].shape
    }
    if not fitting:
        raise CheckpointError(
            f"no weight of {official} fits {original or name}; choose another --model"
        )
    network.load_state_dict(fitting, strict=False)
    save_weights(out, network, recipe, _data_info(num_classes), {})
    return Conversion(
        path=out,
        original=original,
        model=name,
        settings=settings,
        loaded=tuple(fitting),
        reinitialised=tuple(key for key in own if key not in fitting),
        unexpected=tuple(key for key in weights if key not in fitting),
    )


def _named(name: str) -> tuple[str, str, dict[str, Any]]:
    original = ORIGINALS[name]
    return name, original.model, dict(original.settings)


def _recipe(original: str | None, model: str, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with which the model was published."""
    fields = {key: value for key, value in settings.items() if key in ModelConfig.model_fields}
    options = {key: value for key, value in settings.items() if key not in fields}
    drop_path = ORIGINALS[original].drop_path if original else 0.1
    name = original or model
    published = io.load(_PUBLISHED).model_dump(mode="json")
    return io.parse(
        published
        | {
            "name": name,
            "description": "trained by the authors of PaCa-ViT",
            "model": {"name": model, **fields, "drop_path": drop_path, "options": options},
        },
        f"the recipe of {name}",
    )


def _data_info(num_classes: int) -> DataInfo:
    """Facts about ImageNet-1k or, if the number of classes differs, about unknown data."""
    is_imagenet = num_classes == _IMAGENET_CLASSES
    return DataInfo(
        name="imagenet",
        version="ImageNet-1k" if is_imagenet else f"images of {num_classes} classes unknown to us",
        class_names=describe_synsets(ImageNetInfo("imagenet-1k").label_names())
        if is_imagenet
        else tuple(f"class {index}" for index in range(num_classes)),
        image_size=(_IMAGE_SIZE, _IMAGE_SIZE),
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
    )
