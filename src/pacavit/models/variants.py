"""The sizes of the family: keyword arguments of PacaViT by the name of the model."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["VARIANTS"]

_PAPER = {"num_heads": (2, 4, 8, 16), "num_clusters": (100, 100, 100, 0)}
# At 32 x 32 a 7 x 7 kernel or a fourfold hidden layer costs a quarter of a block and gains
# nothing, so the small models make their clusterings lighter unless told otherwise.
_SMALL = {"clustering_defaults": {"conv": {"kernel_size": 3}, "mlp": {"hidden_ratio": 1}}}

VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "pacavit_tiny": {"embed_dims": (96, 192, 320, 384), "depths": (2, 2, 4, 2), **_PAPER},
        "pacavit_small": {"embed_dims": (96, 192, 320, 384), "depths": (3, 3, 10, 3), **_PAPER},
        "pacavit_base": {"embed_dims": (96, 192, 384, 512), "depths": (3, 3, 18, 3), **_PAPER},
        "pacavit_nano": {
            "embed_dims": (64, 128, 256),
            "depths": (1, 1, 1),
            "num_heads": (2, 4, 8),
            "mlp_ratios": 2,
            "num_clusters": (16, 16, 0),
            "stem_dims": (24, 64),
            "transition_convs": 2,
            "act_layer": "relu",
            **_SMALL,
        },
        "pacavit_mini": {
            "embed_dims": (64, 128, 256),
            "depths": (1, 2, 2),
            "num_heads": (2, 4, 8),
            "mlp_ratios": 4,
            "num_clusters": (32, 16, 0),
            "stem_dims": (32, 64),
            "transition_convs": 1,
            **_SMALL,
        },
        "pacavit_large32": {
            "embed_dims": (96, 192, 384),
            "depths": (2, 4, 2),
            "num_heads": (3, 6, 12),
            "mlp_ratios": 4,
            "num_clusters": (49, 32, 0),
            "stem_dims": (48, 96),
            "transition_convs": 1,
            **_SMALL,
        },
    }
)
