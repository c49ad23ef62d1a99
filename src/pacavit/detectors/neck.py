"""The feature pyramid between a backbone and the heads of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from pacavit.errors import RecipeError

__all__ = ["FeaturePyramid"]


class FeaturePyramid(FeaturePyramidNetwork):
    """Maps (B, C_i, H_i, W_i), finest first -> levels (B, C, H_i, W_i), and coarser ones.

    Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017: torchvision's, with
    biases and without norms. Maps may have any strides and odd sizes: each coarser level is
    enlarged to the size of the next finer one.

    Args:
        in_channels: of each map.
        strides: pixels of the image from one cell of each map to the next.
        channels: C, of all levels.
        coarser: levels after the last map, each of half its size: one by max-pooling ("pool"), or
            two by convolutions ("convs", as in RetinaNet and FCOS).

    Attributes:
        strides: of all levels, finest first.
        num_maps: number of levels that belong to a map.

    Raises:
        RecipeError: ``channels`` is not positive.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int = 256,
        coarser: Literal["pool", "convs"] = "pool",
    ) -> None:
        if channels < 1:
            raise RecipeError(f"channels of a detector must be 1 or more, not {channels}")
        blocks = LastLevelMaxPool() if coarser == "pool" else LastLevelP6P7(channels, channels)
        super().__init__(list(in_channels), channels, blocks)
        added = (2,) if coarser == "pool" else (2, 4)
        self.strides = (*strides, *(factor * strides[-1] for factor in added))
        self.num_maps = len(strides)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """The levels by name, finest first."""
        levels: dict[str, Tensor] = super().forward(
            {str(index): each for index, each in enumerate(maps)}
        )
        return levels
