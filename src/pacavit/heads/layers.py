"""Layers that heads share: convolution, norm and activation, of one map or of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.errors import RecipeError
from pacavit.utils.folding import Foldable, fold_batch_norm
from pacavit.utils.layout import enlarge

__all__ = [
    "ConvNormAct",
    "EnlargedConvNormAct",
    "Norm",
    "check_options",
    "classifier",
    "pool_to_cells",
]

_MAX_GROUPS, _MIN_WIDTH = 32, 8  # of GroupNorm: groups, and channels of a group


class Norm(NamedTuple):
    """The kind of norm of a head.

    Attributes:
        kind: "batch", or "group" (GroupNorm) for batches of one or two images.
        eps: added to the variance.
    """

    kind: str = "batch"
    eps: float = 1e-5

    def layer(self, channels: int, *, dims: int = 2) -> nn.Module:
        """A norm of (B, channels, ...).

        GroupNorm has at most 32 groups of at least 8 channels, as many as divide the channels.

        Args:
            channels: any number.
            dims: of the input after the channels, 1 or 2.

        Raises:
            RecipeError: there is no such kind.
        """
        if self.kind == "batch":
            return (nn.BatchNorm1d if dims == 1 else nn.BatchNorm2d)(channels, eps=self.eps)
        if self.kind == "group":
            most = max(1, min(_MAX_GROUPS, channels // _MIN_WIDTH))
            groups = max(number for number in range(1, most + 1) if channels % number == 0)
            return nn.GroupNorm(groups, channels, eps=self.eps)
        raise RecipeError(f"norm of a head must be 'batch' or 'group', not {self.kind!r}")


def classifier(in_chans: int, num_classes: int) -> nn.Conv2d:
    """A 1x1 convolution to the logits of classes, which begin near 0."""
    layer = nn.Conv2d(in_chans, num_classes, 1)
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def check_options(
    head: str, strides: Sequence[int], channels: int, dropout: float, *, least_maps: int = 1
) -> None:
    """Check what all heads are given.

    Raises:
        RecipeError: fewer maps than a head needs, maps that are not finest first, or options that
            are out of range.
    """
    if len(strides) < least_maps:
        raise RecipeError(
            f"head {head!r} needs at least {least_maps} maps and gets {len(strides)}: choose more "
            "by task.stages, or another model"
        )
    if sorted(strides) != list(strides):
        raise RecipeError(
            f"head {head!r} needs maps from fine to coarse, and gets strides {tuple(strides)}"
        )
    if channels < 1:
        raise RecipeError(f"channels of head {head!r} must be 1 or more, not {channels}")
    if not 0 <= dropout < 1:
        raise RecipeError(f"dropout of head {head!r} must be between 0 and 1, not {dropout}")


class ConvNormAct(nn.Module, Foldable):
    """Convolution without bias, norm, ReLU: (B, C0, H, W) -> (B, C, H, W).

    Args:
        in_chans: C0.
        channels: C.
        norm: its kind.
        kernel_size: odd side of the kernel.
    """

    def __init__(self, in_chans: int, channels: int, norm: Norm, kernel_size: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = norm.layer(channels)
        self.act = nn.ReLU(inplace=True)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def fold(self, *, half: bool) -> None:
        """Fold a BatchNorm into the convolution."""
        if fold_batch_norm(self.conv, self.norm):
            self.norm = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C0, H, W) -> (B, C, H, W)."""
        out: Tensor = self.act(self.norm(self.conv(x)))
        return out


class EnlargedConvNormAct(ConvNormAct):
    """1x1 convolution of enlarged, concatenated maps, norm, ReLU: maps -> (B, C, H, W).

    A 1x1 convolution gives the same before bilinear enlarging as after it, so each map is
    convolved at its own size. That is exact, and needs no concatenated map.
    """

    def forward(self, maps: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        """Maps (B, C_i, H_i, W_i), finest first, of which the C_i add up to C0."""
        weights = self.conv.weight.split([each.shape[1] for each in maps], 1)
        # There is a bias only after the norm has been folded into the convolution.
        finest = F.conv2d(maps[0], weights[0], self.conv.bias)
        for x, weight in zip(maps[1:], weights[1:], strict=True):
            finest = finest + enlarge(F.conv2d(x, weight), finest.shape[2:])
        out: Tensor = self.act(self.norm(finest))
        return out


def pool_to_cells(x: Tensor, size: int) -> Tensor:
    """Adaptive average pooling: (B, C, H, W) -> (B, C, size, size).

    In exported programs by products with matrices, because the operator would be exported for one
    size of maps only.
    """
    if not torch.compiler.is_exporting():
        return F.adaptive_avg_pool2d(x, size)
    rows, columns = (_cells(side, size, x) for side in x.shape[2:])
    return rows @ x @ columns.T


def _cells(side: int, size: int, like: Tensor) -> Tensor:
    """Weights (size, side) of adaptive average pooling along an axis."""
    length = torch.scalar_tensor(side, dtype=torch.int64, device=like.device)
    cells = torch.arange(size, device=like.device)
    first, last = cells * length // size, ((cells + 1) * length + size - 1) // size
    places = torch.arange(side, device=like.device)
    inside = (places >= first[:, None]) & (places < last[:, None])
    return inside.to(like) / (last - first)[:, None].to(like)
