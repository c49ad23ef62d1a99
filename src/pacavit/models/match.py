"""Rename the weights of other libraries for a network: by name, by timm's filters, or by order."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import timm
from torch import Tensor, nn

from pacavit.errors import CheckpointError
from pacavit.models.convert import convert_state_dict, is_original, unwrap
from pacavit.utils.refusals import REFUSALS

__all__ = [
    "COUNTER",
    "Match",
    "architecture_of",
    "classifier_prefixes",
    "classifiers",
    "match_weights",
]

COUNTER = "num_batches_tracked"  # not in files of old releases of torch


class Match(NamedTuple):
    """Weights of another library under a network's own names.

    Attributes:
        layout: whose names the file has.
        fitting: tensors by name, with the shapes that the network has.
        fresh: names of the network's tensors that the file lacks, or has with another shape.
        unexpected: names in the file (renamed where possible) that the network lacks, or has with
            another shape.
        fraction: of the numbers in the network's tensors, without its classifier, that fit.
        num_classes: that the classifier in the file has; None if there is none.
    """

    layout: str
    fitting: dict[str, Tensor]
    fresh: tuple[str, ...]
    unexpected: tuple[str, ...]
    fraction: float
    num_classes: int | None


def architecture_of(network: nn.Module) -> str:
    """The name by which timm builds a network like this; that of its class if there is none."""
    facts = getattr(network, "pretrained_cfg", None) or {}
    return str(facts.get("architecture") or type(network).__name__)


def classifier_prefixes(network: nn.Module) -> tuple[str, ...]:
    """Beginnings of the names of the classifier's tensors; distilled networks have two."""
    found = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or ()
    return tuple(f"{name}." for name in ([found] if isinstance(found, str) else found))


def classifiers(network: nn.Module) -> tuple[nn.Module, ...]:
    """The modules that timm calls the classifier; distilled networks have two."""
    get_classifier = getattr(network, "get_classifier", None)
    found = () if get_classifier is None else get_classifier()
    return (found,) if isinstance(found, nn.Module) else tuple(found)


def match_weights(network: nn.Module, checkpoint: Mapping[str, Any]) -> Match:
    """Find the names that a network has for the weights in a checkpoint.

    Four ways are tried, and the one by which most numbers fit is taken: names as they are; those of
    the authors of PaCa-ViT; the filter that timm has for the architecture; and, if all layers have
    the same shapes in the same order (torchvision's ResNet, EfficientNet, ConvNeXt and more), the
    order of the layers.

    Args:
        network: a timm model; nothing is changed.
        checkpoint: a state dict, bare or wrapped in ``state_dict``, ``model``, ``model_ema`` or
            ``state_dict_ema``.

    Raises:
        CheckpointError: there are no tensors in the checkpoint.
    """
    weights = unwrap(checkpoint)
    if not weights:
        raise CheckpointError("there are no named tensors in it")
    found = [
        _compare(network, layout, renamed)
        for layout, renamed in _layouts(network, checkpoint, weights)
    ]
    return max(found, key=lambda match: match.fraction)  # the first of equals


def _layouts(
    network: nn.Module, checkpoint: Mapping[str, Any], weights: dict[str, Tensor]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "the names of the model", weights
    if is_original(checkpoint):
        yield "the names of the authors of PaCa-ViT", convert_state_dict(checkpoint)
    filtered = _filtered(network, weights)
    if filtered is not None:
        yield "names that timm knows for the model", filtered
    ordered = _in_order(network, weights)
    if ordered is not None:
        yield "other names, layers in the order of the model", ordered


def _compare(network: nn.Module, layout: str, weights: Mapping[str, Any]) -> Match:
    own, classifiers = network.state_dict(), classifier_prefixes(network)
    fitting = {
        name: value
        for name, value in weights.items()
        if name in own and isinstance(value, Tensor) and value.shape == own[name].shape
    }
    backbone = {
        name: value.numel()
        for name, value in own.items()
        if not name.startswith(classifiers) and _counts(name)
    }
    fits = sum(size for name, size in backbone.items() if name in fitting)
    return Match(
        layout,
        fitting,
        tuple(n for n in own if n not in fitting and _counts(n)),
        tuple(name for name in weights if name not in fitting and _counts(name)),
        fits / max(1, sum(backbone.values())),
        next((len(weights[n]) for n in map("{}weight".format, classifiers) if n in weights), None),
    )


def _filtered(network: nn.Module, weights: dict[str, Tensor]) -> Mapping[str, Any] | None:
    """The weights as timm's own filter for checkpoints of the architecture renames them."""
    architecture = architecture_of(network)
    if not timm.is_model(architecture):
        return None
    module = sys.modules[timm.model_entrypoint(architecture).__module__]
    rename: Callable[..., Any] | None = getattr(module, "checkpoint_filter_fn", None)
    if rename is None:
        return None
    try:
        found = rename(dict(weights), network)
    except REFUSALS:
        return None
    return found if isinstance(found, Mapping) else None


def _in_order(network: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """The weights under the network's names, tensor by tensor, if all shapes agree.

    Dimensions of 1 do not count: a linear layer may be a convolution with one pixel. The number of
    classes may differ.
    """
    classifiers = classifier_prefixes(network)
    own = {name: value for name, value in network.state_dict().items() if _counts(name)}
    given = [value for name, value in weights.items() if _counts(name)]
    if len(own) != len(given):
        return None
    found = {}
    for (name, value), tensor in zip(own.items(), given, strict=True):
        is_classifier = name.startswith(classifiers)
        first = 1 if is_classifier else 0
        if _essential(value)[first:] != _essential(tensor)[first:]:
            return None
        found[name] = tensor if is_classifier else tensor.reshape(value.shape)
    return found


def _counts(name: str) -> bool:
    return not name.endswith(COUNTER)


def _essential(tensor: Tensor) -> tuple[int, ...]:
    return tuple(size for size in tensor.shape if size > 1)
