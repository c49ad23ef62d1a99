"""Convert weights of other origin into weights files: of the authors, of timm, of torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from pacavit.data.base import DataInfo
from pacavit.engine import build
from pacavit.engine.weights.foreign import Foreign, check_match, imagenet_classes, read_foreign
from pacavit.engine.weights.format import save_weights
from pacavit.errors import CheckpointError, PacavitError, UnknownNameError
from pacavit.models.convert import convert_state_dict, is_original, recognize
from pacavit.models.match import architecture_of, match_weights
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
    source: str | Path, out: Path, *, model: str | None = None, overwrite: bool = False
) -> Conversion:
    """Convert weights of other origin into a weights file that all commands take.

    Args:
        source: file of the authors of PaCa-ViT, timm or torchvision (``torch.save``, of which
            nothing is executed, or safetensors); ``timm:NAME`` or ``hf-hub:USER/NAME``.
        out: weights file to write; its name must end in ``.safetensors``.
        model: the original name of a PaCa-ViT, or timm's name of any other model; None infers a
            PaCa-ViT from the shapes of the weights, and takes that of a ``timm:NAME``.
        overwrite: replace the file ``out``.

    Raises:
        UnknownNameError: there is no such model.
        CheckpointError: the weights are missing or broken, of no known model, less than half of
            them fits the model, or ``out`` exists or cannot be written.
    """
    if model is not None and model not in ORIGINALS and not timm.is_model(model):
        raise UnknownNameError("model", model, [*ORIGINALS, *timm.list_models()])
    if out.suffix != ".safetensors":
        raise CheckpointError(f"the name of the weights file {out} must end in .safetensors")
    if out.is_dir() or (out.exists() and not overwrite):
        raise CheckpointError(f"{out} exists; give another name, or --overwrite to replace a file")
    foreign = read_foreign(source)
    try:
        if is_original(foreign.weights) and (model is None or model in ORIGINALS):
            return _convert_original(foreign, out, model)
        name = model or (foreign.network is not None and architecture_of(foreign.network))
        if not name:
            raise CheckpointError(
                "no weights of an original PaCa-ViT; if it belongs to a model of timm, name that, "
                "as in --model resnet50"
            )
        return _convert_other(foreign, out, name)
    except PacavitError as error:
        raise CheckpointError(f"{foreign.origin}: {error}") from error


def _convert_original(foreign: Foreign, out: Path, model: str | None) -> Conversion:
    weights = convert_state_dict(foreign.weights)
    original, name, settings = _named(model) if model else recognize(weights)
    recipe = _recipe(original, name, settings)
    num_classes = len(weights["head.weight"]) if "head.weight" in weights else _IMAGENET_CLASSES
    network = _build(recipe, num_classes)
    own = network.state_dict()
    fitting = {
        key: value for key, value in weights.items() if key in own and value.shape == own[key].shape
    }
    if not fitting:
        raise CheckpointError(
            f"no weight of the file fits {original or name}; choose another --model"
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


def _convert_other(foreign: Foreign, out: Path, name: str) -> Conversion:
    known = foreign.network or timm.create_model(name)
    facts: Mapping[str, Any] = getattr(known, "pretrained_cfg", None) or {}
    recipe = _recipe_of_timm(name, facts)
    network = _build(recipe, _IMAGENET_CLASSES)
    weights = match_weights(network, foreign.weights)
    num_classes = weights.num_classes or _IMAGENET_CLASSES
    if num_classes != _IMAGENET_CLASSES:
        network = _build(recipe, num_classes)
        weights = match_weights(network, foreign.weights)
    check_match(weights, "the file", name)
    network.load_state_dict(weights.fitting, strict=False)
    size = recipe.task.image_size or _IMAGE_SIZE
    mean, std = facts.get("mean", IMAGENET_DEFAULT_MEAN), facts.get("std", IMAGENET_DEFAULT_STD)
    info = replace(_data_info(num_classes), image_size=(size, size), mean=mean, std=std)
    save_weights(out, network, recipe, info, {})
    return Conversion(
        path=out,
        original=None,
        model=name,
        settings={},
        loaded=tuple(weights.fitting),
        reinitialised=weights.fresh,
        unexpected=weights.unexpected,
    )


def _build(recipe: Recipe, num_classes: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # random weights are the same in every conversion
        return build.model(recipe.model, num_classes)


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


def _recipe_of_timm(name: str, facts: Mapping[str, Any]) -> Recipe:
    """A recipe that prepares images as the weights expect; how they were trained is unknown."""
    published = io.load(_PUBLISHED).model_dump(mode="json")
    crop = {"eval_part": facts.get("crop_pct") or 0.875}
    if facts.get("interpolation") in ("bilinear", "bicubic"):
        crop["interpolation"] = facts["interpolation"]
    size = (facts.get("input_size") or (3, _IMAGE_SIZE, _IMAGE_SIZE))[-1]
    task = published["task"] | {"image_size": size, "crop": published["task"]["crop"] | crop}
    return io.parse(
        published
        | {
            "name": name,
            "description": "trained elsewhere; only the preparation of images is known",
            "task": task,
            "model": {"name": name},
        },
        f"the recipe of {name}",
    )


def _data_info(num_classes: int) -> DataInfo:
    """Facts about ImageNet-1k or, if the number of classes differs, about unknown data."""
    is_imagenet = num_classes == _IMAGENET_CLASSES
    return DataInfo(
        name="imagenet",
        version="ImageNet-1k" if is_imagenet else f"images of {num_classes} classes unknown to us",
        class_names=imagenet_classes()
        if is_imagenet
        else tuple(f"class {index}" for index in range(num_classes)),
        image_size=(_IMAGE_SIZE, _IMAGE_SIZE),
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
    )
