"""Backbones for dense tasks: any timm model as maps of several resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
from torch import Tensor, nn

from pacavit.errors import RecipeError

__all__ = ["Pyramid", "build_pyramid"]


class Pyramid(nn.Module):
    """(B, 3, height, width) -> the maps of some stages, finest first, each (B, C, H, W).

    Args:
        network: returns the maps as a list.
        channels: C of each map.
        strides: pixels of the image from one cell of each map to the next.

    Attributes:
        network: the timm model.
    """

    def __init__(self, network: nn.Module, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.channels, self.strides = tuple(channels), tuple(strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps, finest first."""
        return list(self.network(images))


def build_pyramid(name: str, stages: Sequence[int] | None = None, **arguments: Any) -> Pyramid:
    """A timm model as a pyramid, randomly initialized.

    Args:
        name: of the model.
        stages: indices of the maps, in ascending order; None: all.
        **arguments: of the model.

    Raises:
        RecipeError: the model has no maps, or no such map.
    """
    selected: dict[str, Any] = {} if stages is None else {"out_indices": tuple(stages)}
    try:
        network: Any = timm.create_model(name, features_only=True, **selected, **arguments)
    except (RuntimeError, IndexError, AssertionError, AttributeError) as error:
        raise RecipeError(f"model {name!r} has no maps of several resolutions: {error}") from error
    info = network.feature_info
    return Pyramid(network, info.channels(), info.reduction())
