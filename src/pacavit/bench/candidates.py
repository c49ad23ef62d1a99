"""Networks to measure, by name: timm's and ours, runs and weights, peers."""

from __future__ import annotations

import ast
import copy
import difflib
import os
import re
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any, NamedTuple

import timm
from torch import nn

from pacavit.bench.peers import HUGGING_FACE, PEERS
from pacavit.engine.weights import hub
from pacavit.engine.weights.load import load_model
from pacavit.engine.weights.packaged import packaged_names
from pacavit.errors import PacavitError, UnknownNameError

__all__ = ["Candidate", "find_candidate"]

_SETTING = re.compile(r",(?=\w+=)")  # before each ARGUMENT=VALUE; values may contain commas


class Candidate(NamedTuple):
    """A network to measure.

    Attributes:
        name: as the user wrote it.
        label: for tables and pictures.
        build: from the side of square images in pixels to a network in evaluation mode. Within
            ``torch.device("meta")`` it holds no values, unless it was trained.
    """

    name: str
    label: str
    build: Callable[[int], nn.Module]


def find_candidate(name: str, label: str | None = None) -> Candidate:
    """The network of a name; nothing is built yet, but weights of a run are read.

    Args:
        name: of a timm model (ours are registered with timm), of a peer in ``PEERS``, of packaged
            weights, a run folder, a weights file, or ``hf-hub:USER/NAME`` of ``save_pretrained``;
            names of timm take precedence over a folder of that name (``./NAME``).
            Arguments of a timm model may follow: ``pacavit_small,num_clusters=49``.
        label: by default the name.

    Raises:
        UnknownNameError: there is no such model; the message suggests the nearest names.
        CheckpointError: the weights of a run cannot be read.
        PacavitError: the extra ``peers`` is needed and not installed.
    """
    label = label or name
    if name in PEERS:
        _check_installed(name)
        return Candidate(name, label, lambda size: PEERS[name](size).eval())
    model, *settings = _SETTING.split(name)
    if timm.is_model(model.partition(".")[0]):
        arguments = dict(_argument(text) for text in settings)
        return Candidate(name, label, lambda size: _timm_network(model, arguments, size))
    if name in packaged_names() or os.path.exists(name) or _is_path(name):  # noqa: PTH110 (any text)
        network = load_model(name).task.model
        return Candidate(name, label, lambda _: copy.deepcopy(network).eval())
    raise UnknownNameError("model", model, _near(model))


def _is_path(name: str) -> bool:
    return os.sep in name or name.endswith(".safetensors") or name.startswith(hub.PREFIX)


def _check_installed(name: str) -> None:
    if name in HUGGING_FACE and find_spec("transformers") is None:
        raise PacavitError(
            f"{name} needs the library transformers; install it with: pip install 'pacavit[peers]'"
        )


def _timm_network(model: str, arguments: dict[str, Any], size: int) -> nn.Module:
    """A timm model with random weights for square images."""
    config: Any = timm.get_pretrained_cfg(model)
    if config is not None and config.fixed_input_size and config.input_size[-1] != size:
        arguments = {"img_size": size, **arguments}
    network: nn.Module = timm.create_model(model, **arguments)
    return network.eval()


def _argument(text: str) -> tuple[str, Any]:
    """ARGUMENT=VALUE -> name and value, a Python literal or else a text."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def _near(name: str) -> Iterable[str]:
    """The names nearest to an unknown one; our own and those of peers if there are none."""
    others = [*PEERS, *packaged_names()]
    near = difflib.get_close_matches(name, [*timm.list_models(), *others])
    return near or [*timm.list_models("pacavit_*"), *others]
