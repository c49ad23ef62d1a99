"""Backbones for dense tasks: any timm model as maps of several resolutions."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import timm
import torch
from timm.layers import Format
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.errors import RecipeError
from pacavit.layers import evaluation_mode
from pacavit.models.variants import ORIGINALS, VARIANTS
from pacavit.utils.refusals import REFUSALS
from pacavit.utils.text import one_line

__all__ = ["Pyramid", "build_pyramid", "same_names"]

_DEFAULT_MAPS = 4
# Arguments by which networks of timm accept images of any size, where they have them.
_ANY_SIZE = {"dynamic_img_size": True, "dynamic_img_pad": True, "strict_img_size": False}


class Pyramid(nn.Module):
    """(B, 3, height, width) -> the maps of some stages, finest first, each (B, C, H, W).

    A side of a map is that of the image over the stride, rounded up. Images are padded with zeros,
    right and below, for networks that would round down or refuse.

    Args:
        network: returns the maps as a list.
        channels: C of each map.
        strides: pixels of the image from one cell of each map to the next.
        multiple: the network needs images whose sides are multiples of this.
        name: of the timm model.
        arguments: it was built with.

    Attributes:
        network: the timm model.
    """

    def __init__(
        self,
        network: nn.Module,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        multiple: int = 1,
        name: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.channels, self.strides = tuple(channels), tuple(strides)
        self.multiple, self.name, self.arguments = multiple, name, dict(arguments or {})
        self.channels_last = getattr(network, "output_fmt", None) == Format.NHWC

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps, finest first."""
        height, width = images.shape[2:]
        below, right = -height % self.multiple, -width % self.multiple
        if below or right:
            images = F.pad(images, (0, right, 0, below))
        maps = list(self.network(images))
        if self.channels_last:
            maps = [each.permute(0, 3, 1, 2) for each in maps]
        if not (below or right):
            return maps
        return [
            each[:, :, : math.ceil(height / stride), : math.ceil(width / stride)]
            for each, stride in zip(maps, self.strides, strict=True)
        ]

    @property
    def body(self) -> nn.Module:
        """The timm model without what maps do not need.

        Its modules have the names that they have in the classifier; but those of some networks are
        flattened ("stages_0" for "stages.0"), see ``same_names``.
        """
        inner = getattr(self.network, "model", None)
        return inner if isinstance(inner, nn.Module) else self.network

    def classifier(self) -> nn.Module:
        """The timm model with its classifier, without memory for its tensors."""
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return timm.create_model(self.name, **self.arguments)


def same_names(names: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """Names of tensors of a timm model -> the names of the same tensors in another form of it.

    The forms are the classifier and what returns its maps. Names without a counterpart are left
    out.
    """
    flat = {name.replace(".", "_"): name for name in others}
    pairs = ((name, flat.get(name.replace(".", "_"))) for name in names)
    return {name: other for name, other in pairs if other is not None}


class _Map(NamedTuple):
    """A map that a model has."""

    stage: int
    stride: int


def build_pyramid(name: str, stages: Sequence[int] | None = None, **arguments: Any) -> Pyramid:
    """A timm model as a pyramid, randomly initialized. The pyramid takes images of any size.

    Args:
        name: of the model.
        stages: indices of the maps, in ascending order. None: all maps of a PaCa-ViT; the last
            four of other models with several resolutions; four evenly spaced blocks of a model
            with one.
        **arguments: of the model.

    Raises:
        RecipeError: the model has no maps, no such map, or takes only images of one size.
    """
    arguments = _any_size(name, arguments)
    is_paca = name in VARIANTS or name in ORIGINALS
    if stages is not None:
        if not stages or sorted(set(stages)) != list(stages):
            raise RecipeError(f"task.stages must be ascending indices, not {list(stages)}")
    elif not is_paca:
        stages = _default(_maps(name, arguments))
    try:
        network = _features(name, arguments, stages)
    except (AssertionError, LookupError) as error:
        listed = ", ".join(f"{one} (stride {stride})" for one, stride in _maps(name, arguments))
        raise RecipeError(
            f"task.stages {list(stages or ())}: model {name!r} has the maps {listed}; choose among "
            "them"
        ) from error
    info = network.feature_info
    pyramid = Pyramid(network, info.channels(), info.reduction(), name=name, arguments=arguments)
    on_meta = any(parameter.is_meta for parameter in network.parameters())
    if not is_paca and not on_meta:
        pyramid.multiple = _needed_multiple(pyramid)
    return pyramid


def _any_size(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, and those by which a model of a fixed input size accepts any."""
    facts = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if facts is None or not facts.fixed_input_size:
        return dict(arguments)
    module = sys.modules[timm.model_entrypoint(name).__module__]
    known: set[str] = set()
    for value in vars(module).values():
        if inspect.isclass(value) and issubclass(value, nn.Module):
            parameters = inspect.signature(value).parameters.keys()
            known |= parameters if "num_classes" in parameters else set()  # no mere layer
    return {key: value for key, value in _ANY_SIZE.items() if key in known} | dict(arguments)


def _features(name: str, arguments: Mapping[str, Any], stages: Sequence[int] | None = None) -> Any:
    """The timm model that returns maps of some stages; None: of those that timm chooses."""
    selected: dict[str, Any] = {} if stages is None else {"out_indices": tuple(stages)}
    try:
        return timm.create_model(name, features_only=True, **selected, **arguments)
    except (RuntimeError, TypeError) as error:
        if "features_only" not in str(error):
            raise
        raise RecipeError(
            f"model {name!r} cannot return maps of its stages; choose another model"
        ) from error


def _maps(name: str, arguments: Mapping[str, Any]) -> list[_Map]:
    """All maps of a model."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        infos = _features(name, arguments).feature_info.info
    return [_Map(stage, info["reduction"]) for stage, info in enumerate(infos)]


def _default(maps: Sequence[_Map]) -> list[int] | None:
    """Indices of the maps that a head gets by default."""
    if len(maps) <= _DEFAULT_MAPS:
        return None
    if len({each.stride for each in maps}) > 1:
        return [each.stage for each in maps[-_DEFAULT_MAPS:]]
    steps = range(1, _DEFAULT_MAPS + 1)
    return [round(step * len(maps) / _DEFAULT_MAPS) - 1 for step in steps]


def _needed_multiple(pyramid: Pyramid) -> int:
    """1 if maps have the promised sizes for any image, else the coarsest stride.

    Raises:
        RecipeError: not even images of multiples of the coarsest stride are accepted.
    """
    coarsest, fault = max(pyramid.strides), ""
    sizes = {1: (coarsest + 1, 3 * coarsest - 1), coarsest: (2 * coarsest, 3 * coarsest)}
    for multiple, size in sizes.items():
        promised = [tuple(math.ceil(side / stride) for side in size) for stride in pyramid.strides]
        try:
            with evaluation_mode(pyramid), torch.no_grad():
                found = [tuple(each.shape[2:]) for each in pyramid(torch.zeros(1, 3, *size))]
        except REFUSALS as error:
            fault = one_line(error).rstrip(".")
            continue
        if found == promised:
            return multiple
        fault = f"it has maps of {found} for an image of {size}"
    raise RecipeError(
        f"model {pyramid.name!r} does not take images of any size ({fault}); choose another model"
    )
