"""Networks as folders that the Hugging Face hub, timm and pacavit can read.

Such a folder holds ``model.safetensors``, ``config.json`` in timm's format (architecture,
arguments, class names, size and normalization of images) and ``README.md``, the model card. It
contains no pickles. ``hf upload USER/NAME FOLDER`` publishes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pydantic
import timm
from huggingface_hub import snapshot_download
from timm.models import filter_pretrained_cfg
from torch import nn

from pacavit.data.base import Normalization
from pacavit.engine.weights.fit import build_to_fit
from pacavit.engine.weights.format import HUB, load_state
from pacavit.errors import CheckpointError, PacavitError, RecipeError, UnknownNameError
from pacavit.models import PacaViT
from pacavit.recipes.options import FORBIDDEN_OPTIONS, check_bounds
from pacavit.utils import files
from pacavit.utils.parsing import read_json
from pacavit.utils.refusals import REFUSALS
from pacavit.utils.text import one_line

__all__ = [
    "CARD",
    "CONFIG",
    "PREFIX",
    "WEIGHTS",
    "check_folder",
    "fetch",
    "from_pretrained",
    "read_normalization",
    "save_pretrained",
    "save_task",
]

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
PREFIX = HUB
_REFUSALS = (*REFUSALS, OSError)
# Arguments that matter for training only, and are not stored with the weights.
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
        model: built by its registered name, so that others can build it again.
        folder: created if needed; in an earlier folder of this kind the three files are replaced.
        card: Markdown of the model card.
        class_names: one per class, in label order.
        facts: about images and weights, by their names in timm's configurations (``mean``, ``std``,
            ``input_size``, ``license``, ...), where they differ from those of the model.
        metadata: texts to store beside the weights.

    Raises:
        RecipeError: the model was not built by name, or JSON cannot express one of its arguments.
        CheckpointError: the folder holds something else, or cannot be written.
    """
    folder = Path(folder)
    check_folder(folder)
    config = _config(model, class_names, facts or {})
    _write(folder, model, config, card, metadata)
    return folder


def save_task(
    model: nn.Module,
    folder: Path,
    card: str,
    *,
    task: str,
    class_names: Sequence[str],
    metadata: Mapping[str, str],
) -> Path:
    """Write the network of a dense task as a folder that ``load_model`` and all commands take.

    Timm has no such networks, so it cannot load the folder, and ``from_pretrained`` refuses it.

    Args:
        model: of the task.
        folder: created if needed; in an earlier folder of this kind the three files are replaced.
        card: Markdown of the model card.
        task: registered name.
        class_names: one per class, in label order.
        metadata: recipe and facts, from which the network can be built, see ``weights_metadata``.

    Raises:
        CheckpointError: the folder holds something else, or cannot be written.
    """
    check_folder(folder)
    config = {"library_name": "pacavit", "task": task, "label_names": list(class_names)}
    _write(folder, model, json.dumps(config, indent=2) + "\n", card, metadata)
    return folder


def _write(
    folder: Path, model: nn.Module, config: str, card: str, metadata: Mapping[str, str] | None
) -> None:
    weights = files.tensor_bytes(model.state_dict(), metadata)
    with files.writing(folder):
        files.remove_leftovers(folder)
        files.replace_file(folder / WEIGHTS, weights)
        files.replace_file(folder / CONFIG, config.encode())
        files.replace_file(folder / CARD, card.encode())


def from_pretrained(source: str | Path, **settings: Any) -> nn.Module:
    """The network in a folder that ``save_pretrained`` or timm wrote, in evaluation mode.

    Args:
        source: the folder, or ``hf-hub:USER/NAME`` with or without ``@REVISION``.
        **settings: arguments of the model that replace the stored ones. With another
            ``num_classes`` the classifier is randomly initialized; all other weights must fit. For
            feature maps use ``timm.create_model("local-dir:FOLDER", pretrained=True,
            features_only=True)``.

    Raises:
        CheckpointError: folder, repository or files are missing, broken or do not fit.
        UnknownNameError: timm has no such architecture.
        RecipeError: the model refuses an argument, or an argument is not allowed here.
    """
    folder = fetch(source)
    config = _read_config(folder / CONFIG)
    _check_arguments(config.model_args, f"model_args of {folder / CONFIG}")
    _check_arguments(settings, "from_pretrained")
    wanted = settings.get("num_classes")
    fresh = config.classifiers if wanted not in (None, config.classes) else ()
    shapes, _ = files.read_header(folder / WEIGHTS)
    model = build_to_fit(lambda: _build(folder, settings), shapes, folder, fresh=fresh)
    tensors, _ = files.read_tensors(folder / WEIGHTS)
    if fresh:
        tensors = {name: value for name, value in tensors.items() if not name.startswith(fresh)}
        tensors |= {n: value for n, value in model.state_dict().items() if n.startswith(fresh)}
    load_state(model, tensors, folder)
    return model.eval()


def read_normalization(source: str | Path) -> Normalization | None:
    """Mean and standard deviation of the channels that a folder's weights were trained with.

    Args:
        source: as ``from_pretrained`` takes it.

    Returns:
        None if the folder does not say.

    Raises:
        CheckpointError: folder, repository or configuration are missing or broken.
        UnknownNameError: timm has no such architecture.
    """
    facts = _read_config(fetch(source) / CONFIG).pretrained_cfg
    return None if facts.mean is None or facts.std is None else (facts.mean, facts.std)


def fetch(source: str | Path) -> Path:
    """The local folder of a source; a repository of the hub is downloaded, or read from the cache.

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
    """Raise CheckpointError unless a folder is empty, missing, or written by ``save_pretrained``.

    Folders of an interrupted ``save_pretrained`` are accepted too.
    """
    if not folder.exists():
        return
    entries = folder.iterdir() if folder.is_dir() else [folder]
    names = {path.name for path in entries if not files.is_leftover(path)}
    if not ({WEIGHTS, CONFIG} <= names or names <= {WEIGHTS, CONFIG, CARD}):
        raise CheckpointError(f"{folder} is a file, or holds other files; choose another folder")


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
    for name in ("label_names", "tag"):  # of the initial weights
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


_Finite = Annotated[float, pydantic.Field(allow_inf_nan=False)]
_Channels = tuple[_Finite, _Finite, _Finite]


class _Facts(pydantic.BaseModel):
    """The fields of ``pretrained_cfg`` that are used."""

    num_classes: int | None = None
    classifier: str | tuple[str, ...] | None = None
    mean: _Channels | None = None
    std: _Channels | None = None


class _Config(pydantic.BaseModel):
    """The fields of ``config.json`` that are used here; timm reads the whole file itself."""

    architecture: str
    num_classes: int | None = None
    model_args: dict[str, Any] = {}
    pretrained_cfg: _Facts = _Facts()

    @property
    def classes(self) -> int | None:
        """Number of classes of the stored weights."""
        own = self.model_args.get("num_classes", self.num_classes)
        return self.pretrained_cfg.num_classes if own is None else own

    @property
    def classifiers(self) -> tuple[str, ...]:
        """Prefixes of the names of the classifier's tensors; distilled networks have two."""
        names = self.pretrained_cfg.classifier or ()
        return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))


def _read_config(path: Path) -> _Config:
    """The ``config.json``, checked; its model must be registered with timm."""
    try:
        content = read_json(path)
        if isinstance(content, dict) and "task" in content and "architecture" not in content:
            raise CheckpointError(
                f"{path.parent} holds a network of the task {content['task']!r}, which is no model "
                "of timm; give the folder to pacavit.predict and the other functions"
            )
        config = _Config.model_validate(content)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read a model from {path}: {one_line(error)}") from error
    if not timm.is_model(config.architecture):
        raise UnknownNameError("model", config.architecture, timm.list_models("pacavit_*"))
    return config


def _check_arguments(arguments: Mapping[str, Any], origin: str) -> None:
    """Raise RecipeError for arguments out of bounds, and for those that change the architecture."""
    forbidden = FORBIDDEN_OPTIONS & arguments.keys()
    if forbidden:
        raise RecipeError(
            f"{origin} may not hold {', '.join(sorted(forbidden))}; for maps of features, use "
            "timm.create_model with the folder"
        )
    try:
        check_bounds(arguments)
    except ValueError as error:
        raise RecipeError(f"{origin}: expected {error}") from error


def _build(folder: Path, settings: Mapping[str, Any]) -> Any:
    try:
        return timm.create_model(f"local-dir:{folder}", **settings)
    except PacavitError:
        raise
    except _REFUSALS as e:
        raise RecipeError(
            f"no model can be built from {folder / CONFIG}: {one_line(e, kind=True)}"
        ) from e
