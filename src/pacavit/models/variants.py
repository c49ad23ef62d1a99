"""The models of the family and the original ones: keyword arguments of PacaViT by name.

This module imports nothing but the standard library: ``pacavit list`` runs it without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

__all__ = ["ORIGINALS", "VARIANTS", "Original", "release_url"]

_PAPER = {"num_heads": (2, 4, 8, 16), "num_clusters": (100, 100, 100, 0)}
# For 32 x 32 images a 7 x 7 kernel or a fourfold hidden layer costs a quarter of a block and gains
# no accuracy, so the clusterings of the small models are lighter by default.
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


class Original(NamedTuple):
    """An original model, as one of our models with other settings.

    Attributes:
        model: our name.
        settings: keyword arguments in which it differs from our model of that name.
        drop_path: published rate of stochastic depth in classification.
    """

    model: str
    settings: Mapping[str, Any] = MappingProxyType({})
    drop_path: float = 0.1

    @property
    def summary(self) -> str:
        """What it is, in one line."""
        settings = ", ".join(f"{key}={value!r}" for key, value in self.settings.items())
        return f"The original name of {self.model}({settings}); Grainger et al. 2023."


def _with_teacher(depths: tuple[int, ...], teacher_depths: tuple[int, ...]) -> dict[str, Any]:
    return {
        "depths": depths,
        "clustering": "teacher",
        "num_clusters": (100, 100, 100, 100),
        "teacher_options": {"depths": teacher_depths},
    }


ORIGINALS: Mapping[str, Original] = MappingProxyType(
    {
        "pacavit_tiny_p2cconv_100_0": Original("pacavit_tiny"),
        "pacavit_small_p2cconv_100_0": Original("pacavit_small"),
        "pacavit_base_p2cconv_100_0": Original("pacavit_base", drop_path=0.5),
        "pacavit_small_p2cmlp_100_0": Original("pacavit_small", {"clustering": "mlp"}),
        "pacavit_small_p2cconv_2_0": Original("pacavit_small", {"num_clusters": (2, 2, 2, 0)}),
        "pacavit_small_p2cconv_49_0": Original("pacavit_small", {"num_clusters": (49, 49, 49, 0)}),
        "pacavit_small_p2cconv_49_100": Original(
            "pacavit_small", {"num_clusters": (49, 64, 81, 100)}
        ),
        "pacavit_small_p2cconv_100_49": Original(
            "pacavit_small", {"num_clusters": (100, 81, 64, 49)}
        ),
        "pacavit_small_p2cconv_100": Original(
            "pacavit_small", {"num_clusters": (100, 100, 100, 100)}
        ),
        "pacavit_small_p2cconv_100_blockwise": Original(
            "pacavit_small", {"num_clusters": (100, 100, 100, 100), "recluster_every": 1}
        ),
        "pacavit_convmixer_tiny_100": Original(
            "pacavit_tiny", _with_teacher((2, 2, 2, 2), (2, 2, 2, 2))
        ),
        "pacavit_convmixer_small_100": Original(
            "pacavit_small", _with_teacher((3, 3, 7, 3), (2, 2, 2, 2))
        ),
        "pacavit_convmixer_base_100": Original(
            "pacavit_base", _with_teacher((3, 3, 16, 3), (2, 2, 4, 2))
        ),
    }
)


def release_url(name: str) -> str:
    """The address of the released ImageNet weights of an original model."""
    return f"https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_{name}.pth"
