"""Weights that other libraries trained: from timm, from the Hugging Face hub, from files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from timm.data import ImageNetInfo
from torch import nn

from pacavit.data.base import Channels, Normalization
from pacavit.data.sources.imagenet import describe_synsets
from pacavit.engine.weights import hub
from pacavit.engine.weights.format import TIMM, is_ours
from pacavit.engine.weights.torch_file import read_torch_file
from pacavit.errors import CheckpointError, UnknownNameError
from pacavit.models.match import Match
from pacavit.utils import files
from pacavit.utils.text import first_few, one_line

__all__ = [
    "TIMM",
    "Foreign",
    "check_match",
    "imagenet_classes",
    "is_foreign",
    "normalization",
    "read_foreign",
]

_LEAST = 0.5  # of the backbone's weights that a file must have
_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")


@dataclass(frozen=True)
class Foreign:
    """Weights that this package did not write.

    Attributes:
        origin: file or name, for messages.
        weights: a checkpoint: tensors by name, maybe in a wrapper.
        network: that they belong to, if it is known.
    """

    origin: str
    weights: Mapping[str, Any]
    network: nn.Module | None = None


def is_foreign(source: str | Path) -> bool:
    """Whether a source of weights is timm's, of another library on the hub, or a foreign file.

    Raises:
        CheckpointError: a repository cannot be reached, or a file is broken.
    """
    text = str(source)
    if text.startswith(TIMM):
        return True
    if text.startswith(hub.PREFIX):
        return not is_ours(files.read_header(hub.fetch(text) / hub.WEIGHTS)[1])
    path = Path(source)
    if not path.is_file():
        return False
    if path.suffix == ".safetensors":
        return not is_ours(files.read_header(path)[1])
    return path.suffix in _SUFFIXES


def read_foreign(source: str | Path) -> Foreign:
    """The weights of a source for which ``is_foreign`` holds; no code in them is executed.

    Args:
        source: ``timm:NAME``, ``hf-hub:USER/NAME``, or a ``.safetensors`` file or one of
            ``torch.save``.

    Raises:
        UnknownNameError: timm has no model of that name.
        CheckpointError: the weights are missing, broken or cannot be downloaded.
    """
    text = str(source)
    if text.startswith(TIMM):
        name = text.removeprefix(TIMM)
        if not timm.is_model(name):
            raise UnknownNameError("timm model", name, timm.list_models(pretrained=True))
        with _downloading(text):
            network = timm.create_model(name, pretrained=True)
        return Foreign(text, network.state_dict(), network)
    if text.startswith(hub.PREFIX):
        network = hub.from_pretrained(text)
        return Foreign(text, network.state_dict(), network)
    path = Path(source)
    if path.suffix == ".safetensors":
        return Foreign(str(path), files.read_tensors(path)[0])
    try:
        return Foreign(str(path), read_torch_file(path))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


@contextmanager
def _downloading(name: str) -> Iterator[None]:
    try:
        yield
    # Libraries of several vendors take part in a download, each with errors of its own.
    except Exception as error:
        raise CheckpointError(
            f"no weights for {name}: {one_line(error, kind=True)}; check the name and the network "
            "connection, or give a file that you have downloaded elsewhere"
        ) from error


def check_match(match: Match, origin: str, architecture: str) -> None:
    """Refuse weights that fit less than half of a network.

    Raises:
        CheckpointError: says how much fits, and what does not.
    """
    if match.fraction >= _LEAST:
        return
    raise CheckpointError(
        f"{origin} does not fit {architecture}: of the backbone {match.fraction:.0%} is found, "
        f"half is needed (missing or of another shape: {first_few(match.fresh)}); choose the model "
        "that the weights belong to"
    )


def normalization(init: str | None, architecture: str) -> Normalization | None:
    """Mean and standard deviation of the channels that foreign weights were trained with.

    Args:
        init: source of the weights.
        architecture: of the network that starts from them, for files that say nothing themselves.

    Returns:
        None for weights of this package, and where nothing is known.

    Raises:
        CheckpointError: a repository cannot be reached, or a file is broken.
    """
    if init is None or not is_foreign(init):
        return None
    if init.startswith(hub.PREFIX):
        return hub.read_normalization(init)
    name = init.removeprefix(TIMM) if init.startswith(TIMM) else architecture
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return None if config is None else (_channels(config.mean), _channels(config.std))


def _channels(values: Sequence[float]) -> Channels:
    red, green, blue = values
    return red, green, blue


def imagenet_classes() -> tuple[str, ...]:
    """The names of the classes of ImageNet-1k, in the order of published classifiers."""
    return describe_synsets(ImageNetInfo("imagenet-1k").label_names())
