"""Recognize checkpoints of the original code, and rename their weights for our models."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from pacavit.errors import CheckpointError
from pacavit.models.variants import ORIGINALS, VARIANTS

__all__ = [
    "convert_state_dict",
    "infer_settings",
    "is_original",
    "name_faults",
    "recognize",
    "unwrap",
]


_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_PREFIX = re.compile(r"^(?:module\.|_orig_mod\.|backbone\.)+")
_MARK = re.compile(r"^stage\d+\.\d+\.attn\.")

# Layers of a clustering by their index in the nn.Sequential of the original code.
_CLUSTERING_LAYERS = {
    "conv": {"0": "depthwise", "2": "pointwise", "4": "to_clusters"},
    "mlp": {"0": "fc1", "2": "fc2"},
    "linear": {"0": "to_clusters"},
}
_CLUSTERING_KEY = re.compile(
    r"^(stage\d+\.\d+)\.attn\.clustering\.clustering\.(\d)\.(weight|bias)$"
)
# Layers of one block of the teacher likewise.
_MIXER_LAYERS = {r"0\.fn\.0": "depthwise", r"0\.fn\.2": "norm1", "1": "pointwise", "3": "norm2"}

# A stage in angle brackets is counted from 1.
_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^patch_embed\.proj\.0\.", "stages.0.embed.proj."),
        (r"^patch_embed\.proj\.1\.", "stages.0.embed.embed.proj."),
        (r"^patch_embed\.norm\.", "stages.0.embed.embed.norm."),
        (r"^transition(\d+)\.", r"stages.\1.embed."),
        (r"^stage(\d+)\.(\d+)\.norm([12])_before\.", r"stages.<\1>.blocks.\2.norm\3."),
        (r"^stage(\d+)\.(\d+)\.mlp\.dwconv\.dwconv\.", r"stages.<\1>.blocks.\2.mlp.depthwise."),
        (r"^stage(\d+)\.(\d+)\.", r"stages.<\1>.blocks.\2."),
        (r"^norm(\d+)\.", r"stages.<\1>.norm."),
        *(
            (rf"^paca_teacher\.block(\d+)\.(\d+)\.{index}\.", rf"teacher.stages.<\1>.\2.{layer}.")
            for index, layer in _MIXER_LAYERS.items()
        ),
        *(
            (rf"^paca_teacher\.fpn(\d+)\.{index}\.", rf"teacher.pyramid.<\1>.{layer}.")
            for index, layer in _MIXER_LAYERS.items()
        ),
        (r"^paca_teacher\.transition(\d+)\.0\.conv\.", r"teacher.downs.\1.conv."),
        (r"^paca_teacher\.transition(\d+)\.2\.", r"teacher.downs.\1.norm."),
        (r"^paca_teacher\.lateral(\d+)\.0\.", r"teacher.laterals.<\1>.conv."),
        (r"^paca_teacher\.lateral(\d+)\.2\.", r"teacher.laterals.<\1>.norm."),
        (r"^paca_teacher\.to_clusters(\d+)\.", r"teacher.clusterings.<\1>.to_clusters."),
    )
]


def is_original(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint, wrapped or not, holds weights under original names."""
    return any(_MARK.match(name) for name in unwrap(checkpoint))


def convert_state_dict(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights under original names -> weights under ours.

    Args:
        checkpoint: a state dict, bare or wrapped in ``state_dict``, ``model`` or
            ``state_dict_ema``, with or without the prefixes ``module.``, ``_orig_mod.`` and
            ``backbone.``.

    Returns:
        A state dict for a :class:`~pacavit.models.PacaViT` of the same geometry; weights that
        belong to no part of the model keep their names.

    Raises:
        CheckpointError: nothing in it looks like a PaCa-ViT, a clustering has layers that no
            original clustering has, or a weight is a single number.
    """
    weights = unwrap(checkpoint)
    if not any(_MARK.match(name) for name in weights):
        raise CheckpointError("no weights of an original PaCa-ViT in this checkpoint")
    methods = _clustering_methods(weights)
    converted = {}
    for name, tensor in weights.items():
        if name.endswith(".blur_filter"):
            continue  # the same numbers in every model, computed here
        if name.endswith(".weight") and not tensor.ndim:
            raise CheckpointError(f"its {name} is a single number, no weight of a PaCa-ViT")
        match = _CLUSTERING_KEY.match(name)
        if match:
            block, index, kind = match.groups()
            layer = _CLUSTERING_LAYERS[methods[block]][index]
            name = f"{block}.clustering.{layer}.{kind}"
            # Pointwise convolutions in a block are linear layers here.
            if layer in ("pointwise", "to_clusters") and tensor.ndim > 2:
                tensor = tensor.flatten(1)
        converted[_rename(name)] = tensor
    return converted


def name_faults(own: Collection[str], given: Collection[str]) -> list[str]:
    """How names of given weights differ from the names in a network, a line for each."""
    missing = [f"{name} is missing" for name in own if name not in given]
    return missing + [f"{name} is unexpected" for name in given if name not in own]


def infer_settings(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Keyword arguments of a PacaViT with these weights, as far as shapes determine them.

    Args:
        weights: as :func:`convert_state_dict` gives them.

    Returns:
        ``embed_dims``, ``depths``, ``clustering`` (None if nothing clusters), ``num_clusters``,
        ``recluster_every`` and ``teacher_options``. Shapes do not show the numbers of heads.

    Raises:
        CheckpointError: a stage or a block is missing in between.
    """
    depths = _counts(weights, r"stages\.(\d+)\.blocks\.(\d+)\.")
    taught = _counts(weights, r"teacher\.stages\.(\d+)\.(\d+)\.")
    stages = [_Stage.of(weights, index, depth) for index, depth in enumerate(depths)]
    methods = {stage.method for stage in stages if stage.method is not None}
    # Only where a stage has several blocks and clusters of its own does it show.
    every = {
        stage.recluster_every
        for stage, depth in zip(stages, depths, strict=True)
        if depth > 1 and stage.method not in (None, "teacher")
    }
    clustering: str | tuple[str, ...] | None = next(iter(methods), None)
    if len(methods) > 1:
        clustering = tuple(stage.method or "conv" for stage in stages)
    return {
        "embed_dims": tuple(stage.dim for stage in stages),
        "depths": depths,
        "clustering": clustering,
        "num_clusters": tuple(stage.num_clusters for stage in stages),
        "recluster_every": max(every, default=0)
        if len(every) < 2
        else tuple(stage.recluster_every for stage in stages),
        "teacher_options": {"depths": taught + (2,) * (len(depths) - len(taught))}
        if taught
        else None,
    }


def recognize(weights: Mapping[str, Tensor]) -> tuple[str | None, str, dict[str, Any]]:
    """Which model has these weights, by their shapes.

    Args:
        weights: as :func:`convert_state_dict` gives them.

    Returns:
        The original name (None if there is no such original model), our name, and the keyword
        arguments in which it differs from our model of that name.

    Raises:
        CheckpointError: no model of the family has these widths.
    """
    inferred = infer_settings(weights)
    for name, original in ORIGINALS.items():
        if _settings(original.model, original.settings, inferred) == inferred:
            return name, original.model, dict(original.settings)
    widths, depths = inferred["embed_dims"], inferred["depths"]
    same = [name for name, facts in VARIANTS.items() if facts["embed_dims"] == widths]
    if not same:
        raise CheckpointError(f"no model of the family has the widths {widths} of this checkpoint")
    model = next((name for name in same if VARIANTS[name]["depths"] == depths), same[0])
    usual = _settings(model, {}, inferred)
    # A setting of None has no effect for these weights, whatever the model's default.
    different = {key: value for key, value in inferred.items() if value not in (None, usual[key])}
    return None, model, different


def unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, without wrappers and prefixes of training."""
    for wrapper in _WRAPPERS:
        inner = checkpoint.get(wrapper)
        if isinstance(inner, Mapping) and inner:
            checkpoint = inner
            break
    return {
        _PREFIX.sub("", name): tensor
        for name, tensor in checkpoint.items()
        if isinstance(name, str) and isinstance(tensor, Tensor)
    }


def _clustering_methods(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """The method of each block that clusters, identified by the last of its layers."""
    indices: dict[str, set[str]] = {}
    for name in weights:
        match = _CLUSTERING_KEY.match(name)
        if match:
            indices.setdefault(match[1], set()).add(match[2])
    by_last = {max(layers): method for method, layers in _CLUSTERING_LAYERS.items()}
    methods = {}
    for block, found in indices.items():
        method = by_last.get(max(found))
        if method is None or not found <= _CLUSTERING_LAYERS[method].keys():
            raise CheckpointError(
                f"the clustering of {block} has the layers {', '.join(sorted(found))} of a "
                "sequence, as no original clustering has"
            )
        methods[block] = method
    return methods


def _rename(name: str) -> str:
    for pattern, replacement in _RULES:
        renamed, count = pattern.subn(replacement, name)
        if count:
            # Original names count stages from 1.
            return re.sub(r"<(\d+)>", lambda match: str(int(match[1]) - 1), renamed)
    return name


class _Stage(NamedTuple):
    """Facts of a stage that the shapes of its weights determine."""

    dim: int
    method: str | None
    num_clusters: int
    recluster_every: int

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], index: int, depth: int) -> _Stage:
        """Infer them from the weights of a stage with ``depth`` blocks."""
        blocks = [f"stages.{index}.blocks.{block}." for block in range(depth)]
        norm = weights.get(f"{blocks[0]}norm1.weight")
        if norm is None:
            raise CheckpointError(f"the checkpoint lacks weights of its stage {index + 1}")
        methods = [_method(weights, block) for block in blocks]
        owners = [block for block, method in enumerate(methods) if method is not None]
        every = owners[1] if len(owners) > 1 else 0
        taught = weights.get(f"teacher.clusterings.{index}.to_clusters.weight")
        if taught is not None:
            return cls(len(norm), "teacher", len(taught), every)
        if methods[0] is None:
            return cls(len(norm), None, 0, every)
        last = list(_CLUSTERING_LAYERS[methods[0]].values())[-1]
        num_clusters = len(weights[f"{blocks[0]}clustering.{last}.weight"])
        return cls(len(norm), methods[0], num_clusters, every)


def _method(weights: Mapping[str, Tensor], block: str) -> str | None:
    """The clustering that a block owns, identified by its layers."""
    for method, layers in _CLUSTERING_LAYERS.items():
        if all(f"{block}clustering.{layer}.weight" in weights for layer in layers.values()):
            return method
    return None


def _counts(weights: Mapping[str, Tensor], pattern: str) -> tuple[int, ...]:
    """How many blocks each stage has; ``pattern`` finds the two numbers in a name."""
    found: dict[int, set[int]] = {}
    for name in weights:
        match = re.match(pattern, name)
        if match:
            found.setdefault(int(match[1]), set()).add(int(match[2]))
    for stage in range(len(found)):
        blocks = found.get(stage, set())
        if not blocks or max(blocks) >= len(blocks):
            raise CheckpointError(f"the checkpoint lacks weights of its stage {stage + 1}")
    return tuple(len(found[stage]) for stage in range(len(found)))


def _settings(model: str, settings: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of one of our models: given ones, else the defaults."""
    usual = {"clustering": "conv", "recluster_every": 0, "teacher_options": None}
    return {key: {**usual, **VARIANTS[model], **settings}[key] for key in keys}
