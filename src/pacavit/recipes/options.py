"""Bounds of options from untrusted sources: recipes inside weights, configs of the hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["FORBIDDEN_OPTIONS", "MAX_OPTION", "check_bounds"]

MAX_OPTION = 2**20
"""Largest number in the options of a model; the widest layers of known models have 2**16."""
_MAX_ITEMS = 1024
_MAX_LAYERS = 1024

FORBIDDEN_OPTIONS = frozenset(
    {
        "cache_dir",
        "checkpoint_path",
        "exportable",
        "feature_cfg",
        "features_only",
        "kwargs_filter",
        "model_cfg",
        "no_jit",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "pretrained_custom_load",
        "pretrained_filter_fn",
        "pretrained_strict",
        "pruned",
        "scriptable",
    }
)
"""Arguments that make timm download, unpickle or compile, or build another kind of network."""


def check_bounds(options: Mapping[str, Any]) -> None:
    """Raise ValueError with the name of an option whose number or list exceeds the bounds."""
    for name, value in options.items():
        if ("depth" in name or "layers" in name) and _total(value) > _MAX_LAYERS:
            raise ValueError(f"{name} of at most {_MAX_LAYERS} layers in all")
        if isinstance(value, Mapping):
            check_bounds(value)
        elif isinstance(value, list | tuple):
            if len(value) > _MAX_ITEMS:
                raise ValueError(f"{name} of at most {_MAX_ITEMS} items, not {len(value)}")
            for item in value:
                check_bounds({name: item})
        elif isinstance(value, int | float) and abs(value) > MAX_OPTION:
            raise ValueError(f"{name} of at most {MAX_OPTION}, not {value}")


def _total(value: Any) -> float:
    """The sum of a number, or of the numbers in a list."""
    items = value if isinstance(value, list | tuple) else [value]
    return sum(abs(item) for item in items if isinstance(item, int | float))
