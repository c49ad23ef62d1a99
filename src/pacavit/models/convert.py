"""Names of the authors' checkpoints; they live in this file only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pacavit.errors import CheckpointError

__all__ = ["convert_state_dict"]

_WRAPPERS = ("state_dict_ema", "state_dict", "model")
_PREFIX = re.compile(r"^(?:module\.|_orig_mod\.|backbone\.)+")

# Layers of a clustering by the index they have in the authors' nn.Sequential.
_CLUSTERING_LAYERS = {
    "conv": {"0": "depthwise", "2": "pointwise", "4": "to_clusters"},
    "mlp": {"0": "fc1", "2": "fc2"},
    "linear": {"0": "to_clusters"},
}

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
    )
]
_CLUSTERING_KEY = re.compile(
    r"^(stage\d+\.\d+)\.attn\.clustering\.clustering\.(\d)\.(weight|bias)$"
)


def convert_state_dict(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights under the authors' names -> weights under ours.

    Args:
        checkpoint: a state dict, bare or wrapped in ``state_dict``, ``model`` or
            ``state_dict_ema``, with or without the prefixes ``module.``, ``_orig_mod.`` and
            ``backbone.``.

    Returns:
        A state dict for a :class:`~pacavit.models.PacaViT` of the same geometry.

    Raises:
        CheckpointError: nothing in it looks like a PaCa-ViT.
    """
    weights = _unwrap(checkpoint)
    if not any(re.match(r"^stage\d+\.\d+\.attn\.", name) for name in weights):
        raise CheckpointError("no weights of an original PaCa-ViT in this checkpoint")
    methods = _clustering_methods(weights)
    converted = {}
    for name, tensor in weights.items():
        match = _CLUSTERING_KEY.match(name)
        if match:
            block, index, kind = match.groups()
            layer = _CLUSTERING_LAYERS[methods[block]][index]
            name = f"{block}.clustering.{layer}.{kind}"
            # Pointwise convolutions are linear layers here.
            if layer in ("pointwise", "to_clusters") and kind == "weight":
                tensor = tensor.flatten(1)
        converted[_rename(name)] = tensor
    return converted


def _unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(checkpoint.get(wrapper), Mapping):
            checkpoint = checkpoint[wrapper]
            break
    return {
        _PREFIX.sub("", name): tensor
        for name, tensor in checkpoint.items()
        if isinstance(tensor, Tensor)
    }


def _clustering_methods(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Which method each block that clusters uses, told by how many layers it has."""
    last: dict[str, int] = {}
    for name in weights:
        match = _CLUSTERING_KEY.match(name)
        if match:
            block, index = match[1], int(match[2])
            last[block] = max(last.get(block, 0), index)
    return {block: {0: "linear", 2: "mlp", 4: "conv"}[index] for block, index in last.items()}


def _rename(name: str) -> str:
    for pattern, replacement in _RULES:
        renamed, count = pattern.subn(replacement, name)
        if count:
            # The authors count stages from 1.
            return re.sub(r"<(\d+)>", lambda match: str(int(match[1]) - 1), renamed)
    return name
