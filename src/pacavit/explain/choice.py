"""Which maps to show for a trained model, and what was measured about them.

The only place of this rule: if ``pacavit explain-evaluate`` has measured these very weights, its
most faithful map is the default. If not, the default is the method that was chosen on CIFAR-10, and
for networks of other data ``relevance`` stands beside it, which was more faithful on ``shapes``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pacavit.data import TargetKind
from pacavit.engine.weights.format import WEIGHTS
from pacavit.engine.weights.load import LoadedModel, weights_digest
from pacavit.errors import CheckpointError, PacavitError
from pacavit.explain.methods.base import METHODS, method_title, runs_file
from pacavit.recipes.io import RECIPE_FILE
from pacavit.utils import files
from pacavit.utils.command import Command, pacavit_command
from pacavit.utils.text import one_line, shown

__all__ = [
    "CONTROLS",
    "FOLDER",
    "NUMBERS",
    "MapChoice",
    "choose_maps",
    "default_method",
    "most_faithful",
]

CONTROLS = ("center", "edges", "random")
"""Methods that ignore the network, and are never the default."""
FOLDER = "explain-evaluate"
"""Where in a run folder a measurement of its explanations is found."""
NUMBERS = "faithfulness.json"
"""The file that ``pacavit explain-evaluate`` writes the measurement to."""

_DEFAULT, _BESIDE = "cluster_contributions", "relevance"
_CHOSEN_ON = "cifar10"  # the data set with which the default was chosen
_OF_USERS = ("folder", "csv")  # data sets whose names say nothing about the images
_DENSE: Mapping[TargetKind, str] = {
    "mask": "segmentation",
    "boxes": "detection",
    "instances": "instance segmentation",
}  # by the targets of tasks whose maps explain_evaluate does not measure
_LIMIT = 16 * 2**20  # bytes of a measurement


@dataclass(frozen=True)
class MapChoice:
    """The maps to show for a model.

    Attributes:
        methods: registered names; the first is the default, the others stand beside it.
        note: sentences on what was measured about them; empty if there is nothing to say.
        command: measures the maps; None if nothing needs to be measured.
    """

    methods: tuple[str, ...]
    note: str = ""
    command: Command | None = None


def choose_maps(model: LoadedModel, measured: Path | None = None) -> MapChoice:
    """The maps to show for a model if no method was asked for.

    Args:
        model: as loaded by ``load_model``.
        measured: a folder that ``pacavit explain-evaluate`` wrote for these weights; None takes the
            folder ``explain-evaluate`` in the model's run, if there is one for its present weights.

    Raises:
        CheckpointError: there is no measurement in ``measured``, it is of other weights, or a
            measurement cannot be read.
    """
    if model.task.target in _DENSE and measured is None:
        method = default_method(model.task.model)
        return MapChoice(
            (method,),
            f"The map by {method_title(method)} was not measured on {_DENSE[model.task.target]}: "
            "the rule that chose it was measured on classifiers.",
        )
    run = _run_folder(model)
    if measured is not None:
        numbers = _read(measured / NUMBERS)
        if not _is_of(numbers, model):
            raise CheckpointError(
                f"{shown(measured / NUMBERS)} does not hold a measurement of the weights in "
                f"{shown(model.path)}; repeat pacavit explain-evaluate with these weights"
            )
        return _chosen(numbers, measured / NUMBERS)
    if run is not None and (run / FOLDER / NUMBERS).is_file():
        numbers = _read(run / FOLDER / NUMBERS)
        if _is_of(numbers, model):
            return _chosen(numbers, run / FOLDER / NUMBERS)
    return _unmeasured(model, run)


def default_method(network: nn.Module) -> str:
    """The default method for a network whose maps were not measured.

    It is ``cluster_contributions`` for networks with clusters, ``relevance`` for other transformers
    whose attention can be recorded, and ``grad_cam`` for all others, such as CNNs. Of an exported
    file only outputs are known: ``occlusion``.
    """
    if runs_file(network):
        return "occlusion"
    able = (name for name in (_DEFAULT, _BESIDE) if _can_explain(network, name))
    return next(able, "grad_cam")


def most_faithful(numbers: Mapping[str, Any]) -> MapChoice | None:
    """The measured method with the highest insertion minus deletion; None if all are controls.

    Args:
        numbers: the content of ``faithfulness.json``; scores are those for the top-1 class.
    """
    scores = {row["method"]: row["predicted"]["difference"][0] for row in numbers["methods"]}
    candidates = [name for name in scores if name not in CONTROLS]
    if not candidates:
        return None
    best = max(candidates, key=lambda name: float(scores[name]))
    note = (
        f"The map by {method_title(best)} was the most faithful of {len(candidates)} measured on "
        f"{numbers['num_images']:,} images of {numbers['data']}: insertion minus deletion is "
        f"{scores[best]:.3f}."
    )
    for name in CONTROLS:
        if name in scores and scores[name] >= scores[best]:
            note += (
                f" But that of the control {name}, which ignores the network, is "
                f"{scores[name]:.3f}: do not believe the map."
            )
    return MapChoice((best,), note)


def _can_explain(network: nn.Module, method: str) -> bool:
    try:
        METHODS.create(method, network, options={})
    except PacavitError:
        return False
    return True


def _unmeasured(model: LoadedModel, run: Path | None) -> MapChoice:
    network, name = model.task.model, model.info.name
    data = "these images" if name in _OF_USERS else f"images of {name}"
    first = default_method(network)
    if name == _CHOSEN_ON:
        return MapChoice((first,))
    if first == _DEFAULT and _can_explain(network, _BESIDE):
        methods: tuple[str, ...] = (first, _BESIDE)
        note = (
            f"Neither {method_title(first)} nor {method_title(_BESIDE)} was measured on "
            f"{data}: either may be the more faithful map. Where they differ, believe neither yet."
        )
    else:
        methods = (first,)
        note = f"The map by {method_title(first)} was not measured on {data}."
    if run is None:
        note += " Once it is, give the folder DIR to pacavit explain with --measured."
    source, out = (model.path, "DIR") if run is None else (run, run / FOLDER)
    return MapChoice(methods, note, pacavit_command("explain-evaluate", source, out=out))


def _chosen(numbers: Mapping[str, Any], path: Path) -> MapChoice:
    try:
        choice = most_faithful(numbers)
    except (LookupError, TypeError, ValueError) as error:
        raise _unreadable(path, error) from error
    if choice is None:
        raise _unreadable(path, ValueError("it has controls only"))
    return choice


def _read(path: Path) -> Mapping[str, Any]:
    """The content of a measurement."""
    try:
        numbers = json.loads(files.read_bounded(path, _LIMIT))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"no measurement at {shown(path)}; pacavit explain-evaluate writes one"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(numbers, dict):
        raise _unreadable(path, TypeError("not a JSON object"))
    return numbers


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"the measurement {shown(path)} cannot be read ({one_line(error)}); remove it, and repeat "
        "pacavit explain-evaluate"
    )


def _is_of(numbers: Mapping[str, Any], model: LoadedModel) -> bool:
    """Whether a measurement is of these weights; those of version 0.1 do not say."""
    return numbers.get("weights_sha256") == weights_digest(model)


def _run_folder(model: LoadedModel) -> Path | None:
    """The run whose final weights a model has; None for all other weights."""
    folder = model.path.parent
    return folder if model.path.name == WEIGHTS and (folder / RECIPE_FILE).is_file() else None
