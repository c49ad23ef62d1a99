"""Initialize a network from trained weights; layers that may differ stay randomly initialized."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import timm
from torch import nn

from pacavit.attention import Attention
from pacavit.clustering import Clustering
from pacavit.data import DataInfo
from pacavit.detectors import Detector
from pacavit.engine.weights.foreign import (
    TIMM,
    check_match,
    imagenet_classes,
    is_foreign,
    read_foreign,
)
from pacavit.engine.weights.format import load_state, shape_faults
from pacavit.engine.weights.hub import PREFIX
from pacavit.engine.weights.load import load_network
from pacavit.engine.weights.packaged import packaged_names
from pacavit.errors import CheckpointError
from pacavit.heads import SegmentationHead
from pacavit.models import PacaViT, Pyramid, Teacher
from pacavit.models.match import (
    COUNTER,
    architecture_of,
    classifier_prefixes,
    classifiers,
    match_weights,
)
from pacavit.models.pyramid import same_names
from pacavit.utils.text import first_few

__all__ = ["initialize"]


def initialize(model: nn.Module, info: DataInfo, source: str | Path) -> list[str]:
    """Copy trained weights into a network whose clusterings, classes and task may differ.

    Between a classifier and a network with a head or a detector on a pyramid, the backbone is
    copied. Of weights of other libraries, too, it is the backbone that a pyramid gets; they may
    lack anything, as long as they fit half of it.

    Of weights of this package, the following parts may differ, and then keep their random
    initialization:

    - the classifier, if the classes differ by name or order;
    - the head on a pyramid, and each part of a detector, if it is another one; its classifiers, if
      the classes differ;
    - a clustering: all of it if its method differs, else the layers whose sizes differ;
    - a teacher that the trained network lacks;
    - a part of an attention that the trained network lacks, such as the norm of clusters.

    Args:
        model: on any device; its other weights are replaced.
        info: of the data that the network will be trained on.
        source: run folder, weights file or packaged name; ``timm:NAME``, ``hf-hub:USER/NAME``, or
            a file of another library.

    Returns:
        Lines for the log: what was loaded and what was not.

    Raises:
        UnknownNameError: no packaged weights have that name.
        CheckpointError: the weights are missing, broken or cannot be downloaded, or other layers,
            numbers of heads or activations differ.
    """
    _refuse_unusual(str(source))
    if is_foreign(source):
        return _from_foreign(model, info, source)
    loaded = load_network(source)
    trained, same_classes = loaded.task.model, loaded.info.class_names == info.class_names
    own, other = _backbone(model), _backbone(trained)
    _refuse_other_arithmetic(own, other, loaded.path)
    same_classifier = same_classes and own is model and other is trained
    fresh = _parts_of_its_own(own, other, same_classifier)
    unused = _parts_of_its_own(other, own, same_classifier)
    given = {name: value for name, value in other.state_dict().items() if name not in unused}
    renamed = same_names(given, own.state_dict())
    if own is not model:
        unused |= _beyond_the_maps(own, other, given.keys() - renamed.keys())
    tensors = {
        renamed.get(name, name): value for name, value in given.items() if name not in unused
    }
    tensors |= {name: value for name, value in own.state_dict().items() if name in fresh}
    load_state(own, tensors, f"model.init: {loaded.path}")
    parts = list(fresh.values())
    if own is not model:
        parts += _copy_parts(model, trained, same_classes)
    left_out = [part for part in unused.values() if part not in fresh.values()]
    if own is not model:  # "head" there would be the head on the pyramid
        replaced = {path for path, module in other.named_modules() if module in classifiers(other)}
        left_out = ["classifier" if part in replaced else part for part in left_out]
    return [
        f"started from {loaded.path}, trained on {loaded.info.version}",
        *_other_stride(own, other),
        *_lines("newly initialized", parts),
        *_lines("left out", left_out),
    ]


def _backbone(model: nn.Module) -> nn.Module:
    """The timm model in a network with a pyramid; any other network itself."""
    pyramid = getattr(model, "backbone", None)
    return pyramid.body if isinstance(pyramid, Pyramid) else model


def _beyond_the_maps(own: nn.Module, other: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Names of tensors that maps do not need, with the part that they belong to.

    These are layers after the last map; of a PaCa-ViT, whose layers are known, nothing else.
    """
    if not (isinstance(own, PacaViT) and isinstance(other, PacaViT)):
        return {name: name.split(".")[0] for name in names}
    later = [f"stages.{index}" for index in range(len(own.stages), len(other.stages))]
    return {name: part for part in later for name in names if name.startswith(f"{part}.")}


def _copy_parts(model: nn.Module, trained: nn.Module, same_classes: bool) -> list[str]:
    """Copy what is outside the backbone and the same but for its classes; returns what is fresh."""
    paths = {module: path for path, module in model.named_modules()}
    of_classes = () if same_classes else [paths[layer] for layer in _class_layers(model)]
    fresh: list[str] = []
    for name, part in _parts(model):
        inside = [path for path in of_classes if f"{path}.".startswith(f"{name}.")]
        fits = name not in inside and _copy_part(
            part,
            getattr(trained, name, None),
            [path.removeprefix(f"{name}.") for path in inside],
        )
        fresh += inside if fits else [name]
    return fresh


def _copy_part(part: nn.Module, other: object, fresh: Sequence[str]) -> bool:
    """Copy a module of the same kind, but for the layers at the paths ``fresh``, if all fits."""
    if not isinstance(other, nn.Module) or type(other) is not type(part):
        return False
    prefixes = tuple(f"{path}." for path in fresh)
    state = part.state_dict()
    given = {n: value for n, value in other.state_dict().items() if not n.startswith(prefixes)}
    kept = {name: value for name, value in state.items() if name.startswith(prefixes)}
    if shape_faults(part, {n: tuple(value.shape) for n, value in (given | kept).items()}):
        return False
    load_state(part, given | kept, "model.init")
    return True


def _parts(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules beside the pyramid in a network with one, by name: a head, or several."""
    return [each for each in model.named_children() if not isinstance(each[1], Pyramid)]


def _class_layers(model: nn.Module) -> Sequence[nn.Module]:
    """The layers of a network on a pyramid whose outputs are classes."""
    for owner in (model, getattr(model, "head", None)):
        if isinstance(owner, Detector | SegmentationHead):
            return owner.classifiers()
    return ()


def _other_stride(own: nn.Module, other: nn.Module) -> list[str]:
    """A line if the stem has another stride than it was trained at."""
    strides = [
        network.feature_info[0]["reduction"]
        for network in (own, other)
        if isinstance(network, PacaViT)
    ]
    if len(set(strides)) < 2:
        return []
    return [f"stem_stride {strides[0]}: the stem's weights were trained at stride {strides[1]}"]


def _lines(title: str, parts: Iterable[str]) -> list[str]:
    """A line with the parts, each once; none without parts."""
    listed = ", ".join(dict.fromkeys(parts))
    return [f"{title}: {listed}"] if listed else []


def _refuse_unusual(source: str) -> None:
    """Raise CheckpointError for what users try, and what has a better name."""
    if source.startswith(("http://", "https://")):
        raise CheckpointError(
            f"model.init: {source} is not downloaded; write {TIMM}NAME or {PREFIX}USER/NAME, or "
            "download the file and give its path"
        )
    if source not in packaged_names() and not Path(source).exists() and timm.is_model(source):
        raise CheckpointError(
            f"model.init: no run folder or file {source!r}; for the pretrained weights of timm, "
            f"write {TIMM}{source}"
        )


def _from_foreign(model: nn.Module, info: DataInfo, source: str | Path) -> list[str]:
    foreign = read_foreign(source)
    origin = f"model.init: {foreign.origin}"
    own, pyramid = _backbone(model), getattr(model, "backbone", None)
    # Files hold classifiers: their names are found by means of one.
    classifier = pyramid.classifier() if isinstance(pyramid, Pyramid) else model
    if foreign.network is not None:
        _refuse_other_arithmetic(classifier, foreign.network, foreign.origin)
    try:
        match = match_weights(classifier, foreign.weights)
    except CheckpointError as error:
        raise CheckpointError(f"{origin}: {error}") from error
    check_match(match, origin, architecture_of(classifier))
    same_classes = own is model and info.class_names == imagenet_classes()
    fresh_prefixes = () if same_classes else classifier_prefixes(classifier)
    fitting = {n: value for n, value in match.fitting.items() if not n.startswith(fresh_prefixes)}
    state = own.state_dict()
    renamed = same_names(fitting, state)
    loaded = {renamed[name]: value for name, value in fitting.items() if name in renamed}
    load_state(own, state | loaded, origin)
    fresh = [_layer(name) for name in state if name not in loaded and not name.endswith(COUNTER)]
    if own is not model:
        fresh += [name for name, _ in _parts(model)]
    left_out = [name for name in match.unexpected if not name.startswith(fresh_prefixes)]
    lines = [
        f"started from {foreign.origin} ({match.layout}): {match.fraction:.1%} of the backbone"
    ]
    if fresh:
        lines.append(f"newly initialized: {first_few(list(dict.fromkeys(fresh)))}")
    if left_out:
        lines.append(f"left out: {first_few(left_out)}")
    return lines


def _refuse_other_arithmetic(model: nn.Module, trained: nn.Module, path: Path | str) -> None:
    """Raise CheckpointError for differences that are not visible in the shapes of weights."""
    own, others = _shapeless_facts(model), _shapeless_facts(trained)
    for name, fact in own.items():
        if name in others and fact != others[name]:
            raise CheckpointError(
                f"model.init: {path} does not fit the model: "
                f"its {name} is {others[name]} and must be {fact}"
            )


def _shapeless_facts(network: nn.Module) -> dict[str, int | str]:
    """Numbers of heads and activations of all layers, by name.

    Those of clusterings are left out, because clusterings may differ.
    """
    facts: dict[str, int | str] = {}
    clusterings = {module for module in network.modules() if isinstance(module, Clustering)}
    left_out = {part for clustering in clusterings for part in clustering.modules()}
    for path, module in network.named_modules():
        if module in left_out:
            continue
        heads, activation = getattr(module, "num_heads", None), getattr(module, "act", None)
        if isinstance(heads, int):
            facts[f"{path}.num_heads"] = heads
        if isinstance(activation, nn.Module):
            facts[f"{path}.act"] = type(activation).__name__
    return facts


def _parts_of_its_own(model: nn.Module, other: nn.Module, same_classes: bool) -> dict[str, str]:
    """Names of tensors that may be missing in the other model -> the part that they belong to."""
    counterparts = dict(other.named_modules())
    replaced = () if same_classes else classifiers(model)
    found: dict[str, str] = {}
    for path, module in model.named_modules():
        part: dict[str, str] = {}
        counterpart = counterparts.get(path)
        if isinstance(module, Clustering):
            if counterpart is not None and type(counterpart) is type(module):
                part = _layers_that_differ(path, module, counterpart)
            else:
                part = _whole(path, module)
        elif isinstance(module, Attention) and isinstance(counterpart, Attention):
            for name, child in module.named_children():
                if not hasattr(counterpart, name):
                    part |= _whole(f"{path}.{name}", child)
        elif (isinstance(module, Teacher) and counterpart is None) or module in replaced:
            part = _whole(path, module)
        # A part inside of a reported part is not reported again.
        found |= {name: owner for name, owner in part.items() if name not in found}
    return found


def _whole(path: str, module: nn.Module) -> dict[str, str]:
    return {f"{path}.{name}": path for name in module.state_dict()}


def _layers_that_differ(path: str, module: nn.Module, counterpart: nn.Module) -> dict[str, str]:
    """All tensors of the layers in which a tensor is missing or has another shape."""
    own, others = module.state_dict(), counterpart.state_dict()
    layers = {
        _layer(name)
        for name in own.keys() | others.keys()
        if name not in own or name not in others or own[name].shape != others[name].shape
    }
    return {
        f"{path}.{name}": f"{path}.{_layer(name)}".rstrip(".")
        for name in own
        if _layer(name) in layers
    }


def _layer(name: str) -> str:
    """The layer that a tensor belongs to; empty for a module's own tensors."""
    return name.rpartition(".")[0]
