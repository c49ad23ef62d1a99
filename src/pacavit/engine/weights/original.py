"""Convert weights of other origin into weights files: of the authors, of timm, of torchvision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from pacavit.data.base import DataInfo, MaskInfo, ObjectInfo
from pacavit.data.formats.class_list import ListedClass
from pacavit.data.palette import class_colors
from pacavit.data.sources.ade20k import published_classes
from pacavit.detectors import DETECTORS, Detector
from pacavit.detectors.convert import DETECTOR_PREFIXES, convert_detector, recognize_detector
from pacavit.engine import build
from pacavit.engine.weights.foreign import Foreign, check_match, imagenet_classes, read_foreign
from pacavit.engine.weights.format import save_weights
from pacavit.errors import CheckpointError, PacavitError, UnknownNameError
from pacavit.heads.convert import HEAD_PREFIXES, convert_head, recognize_head
from pacavit.models import Pyramid
from pacavit.models.convert import convert_state_dict, infer_settings, is_original, recognize
from pacavit.models.match import architecture_of, match_weights
from pacavit.models.variants import ORIGINALS
from pacavit.recipes import io
from pacavit.recipes.schema import ModelConfig, Recipe
from pacavit.tasks.segmentation import Segmenter

__all__ = ["Conversion", "convert_checkpoint"]

_IMAGENET_CLASSES = 1000
_IMAGE_SIZE = 224
_USUAL_SIZE = (512, 683)  # of images in ADE20K
_USUAL_COCO_SIZE = (480, 640)
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
    if any(name.startswith(HEAD_PREFIXES) for name in weights):
        return _convert_segmentation(weights, out, model)
    # Of detectors without this part, such as RetinaNet, the backbone is taken.
    if any(name.startswith("roi_head.") for name in weights):
        return _convert_detection(weights, out, model)
    original, name, settings = _named(model) if model else recognize(weights)
    recipe = _recipe(original, name, settings)
    num_classes = len(weights["head.weight"]) if "head.weight" in weights else _IMAGENET_CLASSES
    network = _build(recipe, num_classes)
    return _write(out, network, weights, recipe, _data_info(num_classes), original, settings)


def _convert_segmentation(
    weights: Mapping[str, Tensor], out: Path, model: str | None
) -> Conversion:
    head, backbone = _split(weights, HEAD_PREFIXES)
    facts = recognize_head(head)
    original, name, settings = _recognized(backbone, model)
    task = {"head_options": dict(facts.options)}
    recipe = _published_recipe(f"ade20k_{{}}_{facts.name}", name, settings, task)
    info = _segmentation_info(facts.num_classes)
    with _same_random_weights():
        network = build.task(recipe, info).model
    assert isinstance(network, Segmenter)
    renamed = _in_pyramid(network, network.backbone, backbone) | {
        key if key.startswith(HEAD_PREFIXES) else f"head.{key}": value
        for key, value in convert_head(head, network.head).items()
    }
    return _write(out, network, renamed, recipe, info, original, settings)


def _convert_detection(weights: Mapping[str, Tensor], out: Path, model: str | None) -> Conversion:
    parts, backbone = _split(weights, DETECTOR_PREFIXES)
    facts = recognize_detector(parts)
    original, name, settings = _recognized(backbone, model)
    has_masks = DETECTORS.get(facts.name).has_masks
    task = {
        "name": "instance_segmentation" if has_masks else "detection",
        "detector": facts.name,
        "detector_options": dict(facts.options),
    }
    recipe = _published_recipe("coco_{}", name, settings, task)
    info = _detection_info(facts.num_classes)
    with _same_random_weights():
        network = build.task(recipe, info).model
    assert isinstance(network, Detector)
    renamed = _in_pyramid(network, network.backbone, backbone) | convert_detector(parts)
    return _write(out, network, renamed, recipe, info, original, settings)


def _split(
    weights: Mapping[str, Tensor], prefixes: tuple[str, ...]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Those whose names have one of the prefixes, and all others."""
    chosen = {name: value for name, value in weights.items() if name.startswith(prefixes)}
    return chosen, {name: value for name, value in weights.items() if name not in chosen}


def _recognized(
    backbone: Mapping[str, Tensor], model: str | None
) -> tuple[str | None, str, dict[str, Any]]:
    """Original name, our name and settings of a backbone whose numbers of clusters may be others.

    Args:
        backbone: its weights.
        model: original name; None: by the shapes.
    """
    if model is None:
        return recognize(backbone)
    original, name, settings = _named(model)
    settings["num_clusters"] = infer_settings(backbone)["num_clusters"]
    return original, name, settings


def _published_recipe(
    pattern: str, name: str, settings: Mapping[str, Any], task: Mapping[str, Any]
) -> Recipe:
    """The recipe of a dense task with which a model was published, for weights of another shape.

    Args:
        pattern: of the recipe's name, with {} for the size of the model.
        name: of the model.
        settings: of the model.
        task: fields of the task to replace.
    """
    published = pattern.format(name.removeprefix("pacavit_"))
    if published not in io.names():
        raise CheckpointError(f"{name} was not published for this task")
    document = io.load(published).model_dump(mode="json")
    return io.parse(
        document
        | {
            "description": "trained by the authors of PaCa-ViT",
            "task": document["task"] | task,
            "model": _model_section(name, settings, document["model"]["drop_path"]),
        },
        f"the recipe of {name}",
    )


def _in_pyramid(
    network: nn.Module, backbone: Pyramid, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weights of a backbone under their names in a network."""
    paths = {module: path for path, module in network.named_modules()}
    return {f"{paths[backbone.body]}.{name}": value for name, value in weights.items()}


def _write(
    out: Path,
    network: nn.Module,
    weights: Mapping[str, Tensor],
    recipe: Recipe,
    info: DataInfo,
    original: str | None,
    settings: Mapping[str, Any],
) -> Conversion:
    """Load what fits into a network, and write it."""
    own = network.state_dict()
    fitting = {
        key: value for key, value in weights.items() if key in own and value.shape == own[key].shape
    }
    name = recipe.model.name
    if not fitting:
        raise CheckpointError(
            f"no weight of the file fits {original or name}; choose another --model"
        )
    network.load_state_dict(fitting, strict=False)
    save_weights(out, network, recipe, info, {})
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


@contextmanager
def _same_random_weights() -> Iterator[None]:
    """Random weights inside the context are the same in every conversion."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _build(recipe: Recipe, num_classes: int) -> nn.Module:
    with _same_random_weights():
        return build.model(recipe.model, num_classes)


def _named(name: str) -> tuple[str, str, dict[str, Any]]:
    original = ORIGINALS[name]
    return name, original.model, dict(original.settings)


def _recipe(original: str | None, model: str, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with which the model was published."""
    drop_path = ORIGINALS[original].drop_path if original else 0.1
    name = original or model
    published = io.load(_PUBLISHED).model_dump(mode="json")
    return io.parse(
        published
        | {
            "name": name,
            "description": "trained by the authors of PaCa-ViT",
            "model": _model_section(model, settings, drop_path),
        },
        f"the recipe of {name}",
    )


def _model_section(model: str, settings: Mapping[str, Any], drop_path: float) -> dict[str, Any]:
    """The section of a recipe for one of our models with other settings."""
    fields = {key: value for key, value in settings.items() if key in ModelConfig.model_fields}
    options = {key: value for key, value in settings.items() if key not in fields}
    return {"name": model, **fields, "drop_path": drop_path, "options": options}


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


def _segmentation_info(num_classes: int) -> DataInfo:
    """Facts about ADE20K or, if the number of classes differs, about unknown data."""
    classes, version = published_classes(), "ADE20K scene parsing"
    if num_classes != len(classes):
        numbers = range(1, num_classes + 1)
        classes = tuple(ListedClass(f"class {number}", number) for number in numbers)
        version = f"images of {num_classes} classes unknown to us"
    names = tuple(entry.name for entry in classes)
    colors = zip(classes, class_colors(names), strict=True)
    return DataInfo(
        name="ade20k",
        version=version,
        class_names=names,
        image_size=_USUAL_SIZE,
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        masks=MaskInfo(
            tuple(entry.value or 0 for entry in classes),
            tuple(entry.color or default for entry, default in colors),
        ),
    )


def _detection_info(num_classes: int) -> DataInfo:
    """Facts about COCO or, if the number of classes differs, about unknown data."""
    # Listed by their own numbers, of which some are of no class.
    listed = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    names = {
        number: name for number, name in enumerate(listed) if name not in ("__background__", "N/A")
    }
    version = "COCO 2017"
    if num_classes != len(names):
        names = {number: f"class {number}" for number in range(1, num_classes + 1)}
        version = f"images of {num_classes} classes unknown to us"
    return DataInfo(
        name="coco",
        version=version,
        class_names=tuple(names.values()),
        image_size=_USUAL_COCO_SIZE,
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        objects=ObjectInfo(tuple(names), class_colors(tuple(names.values()))),
    )
