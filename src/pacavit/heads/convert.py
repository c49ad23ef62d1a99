"""Recognize the heads of the authors' segmentation checkpoints, and rename their weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from pacavit.errors import CheckpointError
from pacavit.heads.base import SegmentationHead
from pacavit.heads.paca import PacaHead

__all__ = ["HEAD_PREFIXES", "HeadFacts", "convert_head", "recognize_head"]

HEAD_PREFIXES = ("decode_head.", "auxiliary_head.")
"""Beginnings of the names of weights of heads, as in mmsegmentation."""

_UPERNET_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^decode_head\.psp_modules\.(\d+)\.1\.", r"pooled.\1."),
        (r"^decode_head\.bottleneck\.", "context."),
        (r"^decode_head\.lateral_convs\.(\d+)\.", r"laterals.\1."),
        (r"^decode_head\.fpn_convs\.(\d+)\.", r"smooth.\1."),
        (r"^decode_head\.fpn_bottleneck\.", "fuse."),
        (r"^decode_head\.conv_seg\.", "classifier."),
        (r"^auxiliary_head\.convs\.0\.", "auxiliary.0."),
        (r"^auxiliary_head\.conv_seg\.", "auxiliary.2."),
    )
]
_CLASSIFIER = "decode_head.conv_seg"


class HeadFacts(NamedTuple):
    """What the shapes of a head's weights determine.

    Attributes:
        name: registered name of the head.
        options: named options in which it differs from the defaults.
        num_classes: classes.
    """

    name: str
    options: Mapping[str, Any]
    num_classes: int


def recognize_head(weights: Mapping[str, Tensor]) -> HeadFacts:
    """The head that has these weights.

    Args:
        weights: those with ``HEAD_PREFIXES``.

    Raises:
        CheckpointError: there is no last layer ``decode_head.conv_seg``, in which all heads of
            mmsegmentation end.
    """
    last = weights.get(f"{_CLASSIFIER}.weight")
    if last is None or last.ndim != 4:
        raise CheckpointError(f"its head has no last layer {_CLASSIFIER}")
    num_classes, channels = last.shape[:2]
    if not any(name.startswith("decode_head.psp_modules.") for name in weights):
        options = {} if channels == 256 else {"channels": channels}
        return HeadFacts("paca", options, num_classes)
    options = {} if channels == 512 else {"channels": channels}
    if not any(name.startswith("auxiliary_head.") for name in weights):
        options["auxiliary"] = False
    return HeadFacts("upernet", options, num_classes)


def convert_head(weights: Mapping[str, Tensor], head: SegmentationHead) -> dict[str, Tensor]:
    """Weights under the authors' names -> weights under those of ``head``.

    UperNet has the names of mmsegmentation. The names in the authors' PaCa head are not known to
    us. Its layers are found by shape, and, among layers of one shape, by their order in the file,
    which is assumed to be that of the paper: queries before clustering, keys before values. Only
    the last layer has a name, ``conv_seg``.

    Args:
        weights: those with ``HEAD_PREFIXES``.
        head: of the kind that ``recognize_head`` returns.

    Returns:
        A state dict; weights that have no place in the head keep their names.

    Raises:
        CheckpointError: a PaCa head lacks a layer.
    """
    if isinstance(head, PacaHead):
        return _by_order(weights, head)
    return {_rename(name): tensor for name, tensor in weights.items()}


def _rename(name: str) -> str:
    for pattern, replacement in _UPERNET_RULES:
        renamed, count = pattern.subn(replacement, name)
        if count:
            return renamed.replace(".bn.", ".norm.")
    return name


class _Layer(NamedTuple):
    """A linear layer or convolution, and the norm after it."""

    name: str
    tensors: Mapping[str, Tensor]
    norm: str | None
    norm_tensors: Mapping[str, Tensor]

    def fits(self, other: _Layer) -> bool:
        """Whether the shapes agree; dimensions of 1 do not count."""
        pairs = ((self.tensors, other.tensors), (self.norm_tensors, other.norm_tensors))
        return all(_shapes(one) == _shapes(two) for one, two in pairs)


def _by_order(weights: Mapping[str, Tensor], head: PacaHead) -> dict[str, Tensor]:
    given, own = _layers(weights), _layers(head.state_dict())
    found: dict[str, Tensor] = {}
    rest = dict(weights)
    # The last layer first, by its name: that of the clusters' logits has the same shape.
    for layer in sorted(own, key=lambda each: each.name != "classifier"):
        wanted = layer.name == "classifier"
        match = next(
            (each for each in given if (each.name == _CLASSIFIER) == wanted and each.fits(layer)),
            None,
        )
        if match is None:
            shape = tuple(layer.tensors["weight"].shape)
            raise CheckpointError(
                f"its decode_head is no PaCa head: it has no {layer.name} of shape {shape}"
            )
        given.remove(match)
        places = (
            (match.name, match.tensors, layer.name, layer.tensors),
            (match.norm, match.norm_tensors, layer.norm, layer.norm_tensors),
        )
        for theirs, tensors, ours, like in places:
            for kind, tensor in tensors.items():
                found[f"{ours}.{kind}"] = tensor.reshape(like[kind].shape)
                del rest[f"{theirs}.{kind}"]
    return found | rest


def _layers(weights: Mapping[str, Tensor]) -> list[_Layer]:
    """The layers in the order of a state dict; each norm belongs to the layer before it."""
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        module, _, kind = name.rpartition(".")
        modules.setdefault(module, {})[kind] = tensor
    found: list[_Layer] = []
    for name, tensors in modules.items():
        if "weight" in tensors and tensors["weight"].ndim > 1:
            found.append(_Layer(name, tensors, None, {}))
        elif "running_mean" in tensors and found:
            found[-1] = found[-1]._replace(norm=name, norm_tensors=tensors)
    return found


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {
        kind: tuple(size for size in tensor.shape if size > 1)
        for kind, tensor in tensors.items()
        if kind != "num_batches_tracked"
    }
