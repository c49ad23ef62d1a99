"""Networks as folders that the Hugging Face hub, timm and pacavit read.

Such a folder holds ``model.safetensors``, ``config.json`` as timm writes it (architecture,
arguments, class names, what images must look like) and ``README.md``, the model card. There is no
pickle in it. ``hf upload USER/NAME FOLDER`` publishes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import snapshot_download
from timm.models import filter_pretrained_cfg
from torch import nn

from pacavit.engine.weights.load import load_state
from pacavit.errors import CheckpointError, PacavitError, RecipeError, UnknownNameError
from pacavit.models import PacaViT
from pacavit.utils import files
from pacavit.utils.text import one_line

__all__ = [
    "CARD",
    "CONFIG",
    "PREFIX",
    "WEIGHTS",
    "check_folder",
    "fetch",
    "from_pretrained",
    "save_pretrained",
]

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
PREFIX = "hf-hub:"
# They belong to a training, not to the weights that came out of it.
_TRAINING_ARGUMENTS = frozenset({"drop_rate", "proj_drop_rate", "drop_path_rate"})


def save_pretrained(
    model: PacaViT,
    folder: str | Path,
    card: str,
    *,
    class_names: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a network as a folder that ``from_pretrained`` and timm's ``local-dir:`` load.

    Args:
        model: built by its registered name, so that others can build its like.
        folder: made if it is not there; of a folder like it, the three files are replaced.
        card: Markdown of the model card.
        class_names: one per class, in label order.
        facts: of images and weights, by their names in timm's configurations (``mean``, ``std``,
            ``input_size``, ``license``, ...), where they differ from the model's own.
        metadata: texts to store beside the weights.

    Raises:
        RecipeError: the model was not built by name, or one of its arguments is no JSON.
        CheckpointError: the folder holds something else, or cannot be written.
    """
    folder = Path(folder)
    check_folder(folder)
    config = _config(model, class_names, facts or {})
    weights = files.tensor_bytes(model.state_dict(), metadata)
    with files.writing(folder):
        files.remove_leftovers(folder)
        files.replace_file(folder / WEIGHTS, weights)
        files.replace_file(folder / CONFIG, config.encode())
        files.replace_file(folder / CARD, card.encode())
    return folder


def from_pretrained(source: str | Path, **settings: Any) -> nn.Module:
    """The network in a folder that ``save_pretrained`` or timm wrote, in evaluation mode.

    Args:
        source: the folder, or ``hf-hub:USER/NAME`` with or without ``@REVISION``.
        **settings: arguments of the model instead of the stored ones. With another
            ``num_classes`` the classifier is fresh; all other weights must fit. For maps
            instead of logits: ``timm.create_model("local-dir:FOLDER", pretrained=True,
            features_only=True)``.

    Raises:
        CheckpointError: folder, repository or files are missing, broken or do not fit.
        UnknownNameError: timm has no such architecture.
        RecipeError: the model refuses an argument.
    """
    folder = fetch(source)
    _check_architecture(folder / CONFIG)
    tensors, _ = files.read_tensors(folder / WEIGHTS)
    # Building draws random weights, which are overwritten: the caller's generator shall not move.
    with torch.random.fork_rng(devices=[]):
        model = _build(folder, settings)
    facts = model.pretrained_cfg
    if model.num_classes != facts["num_classes"]:
        prefix = f"{facts['classifier']}."
        fresh = {
            name: value for name, value in model.state_dict().items() if name.startswith(prefix)
        }
        tensors = {name: value for name, value in tensors.items() if not name.startswith(prefix)}
        tensors |= fresh
    load_state(model, tensors, folder)
    return model.eval()


def fetch(source: str | Path) -> Path:
    """The local folder of a source; a repository of the hub is downloaded, or found in its cache.

    Raises:
        CheckpointError: there is no such folder or repository, or it cannot be reached.
    """
    if isinstance(source, str) and source.startswith(PREFIX):
        repository, _, revision = source.removeprefix(PREFIX).partition("@")
        try:
            path = snapshot_download(
                repository, revision=revision or None, allow_patterns=[WEIGHTS, CONFIG]
            )
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot fetch {source}: {one_line(error)}") from error
        return Path(path)
    folder = Path(source)
    if not folder.is_dir():
        raise CheckpointError(
            f"no folder at {folder}; a repository of the hub is named {PREFIX}USER/NAME"
        )
    return folder


def check_folder(folder: Path) -> None:
    """Raise CheckpointError unless a folder is free, or holds what ``save_pretrained`` wrote.

    An interrupted ``save_pretrained`` may have written only a part.
    """
    if not folder.exists():
        return
    entries = folder.iterdir() if folder.is_dir() else [folder]
    names = {path.name for path in entries if not files.is_leftover(path)}
    if not ({WEIGHTS, CONFIG} <= names or names <= {WEIGHTS, CONFIG, CARD}):
        raise CheckpointError(f"{folder} is in use for something else; choose another folder")


def _config(model: PacaViT, class_names: Sequence[str], changes: Mapping[str, Any]) -> str:
    """The text of ``config.json``."""
    if not model.settings:
        raise RecipeError(
            "only models that were built by name, as timm.create_model does, and have all their "
            "stages can be saved"
        )
    if class_names and len(class_names) != model.num_classes:
        raise RecipeError(f"{len(class_names)} class names for {model.num_classes} classes")
    facts: dict[str, Any] = filter_pretrained_cfg(model.pretrained_cfg, remove_source=True)
    if not class_names and facts["num_classes"] == model.num_classes:
        class_names = facts.get("label_names", ())
    for name in ("label_names", "tag"):  # of the weights that the model began with
        facts.pop(name, None)
    shape = (model.settings.get("in_chans", 3), *facts["input_size"][1:])
    first = next(name for name, part in model.named_modules() if isinstance(part, nn.Conv2d))
    facts |= {"num_classes": model.num_classes, "input_size": shape, "first_conv": first}
    head = {"num_classes": model.num_classes, "global_pool": model.global_pool}
    arguments = {
        name: value for name, value in model.settings.items() if name not in _TRAINING_ARGUMENTS
    }
    config = {
        "architecture": facts.pop("architecture"),
        **head,
        "num_features": model.num_features,
        "label_names": list(class_names),
        "model_args": arguments | head,
        "pretrained_cfg": {**facts, **changes},
    }
    try:
        return json.dumps(config, indent=2) + "\n"
    except TypeError as error:
        raise RecipeError(f"an argument of the model cannot be stored: {error}") from error


def _check_architecture(path: Path) -> None:
    """Raise unless ``config.json`` names a model that timm knows."""
    try:
        architecture = str(json.loads(path.read_text(encoding="utf-8"))["architecture"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"cannot read a model from {path}: {one_line(error, kind=True)}"
        ) from error
    if not timm.is_model(architecture):
        raise UnknownNameError("model", architecture, timm.list_models("pacavit_*"))


def _build(folder: Path, settings: Mapping[str, Any]) -> Any:
    try:
        return timm.create_model(f"local-dir:{folder}", **settings)
    except PacavitError:
        raise
    except (AttributeError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as e:
        raise RecipeError(
            f"no model can be built from {folder / CONFIG}: {one_line(e, kind=True)}"
        ) from e
