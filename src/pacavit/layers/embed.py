"""Stems and transitions: from a map of pixels or features to tokens and their grid."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.errors import RecipeError
from pacavit.types import Grid
from pacavit.utils.folding import Foldable, fold_batch_norm
from pacavit.utils.layout import tokens_of

__all__ = [
    "ConvStem",
    "PatchStem",
    "PoolTransition",
    "Transition",
    "fill_padding",
    "reduce_mask",
]


def reduce_mask(mask: Tensor, stride: int) -> Tensor:
    """(B, H, W) bool -> (B, ceil(H / stride), ceil(W / stride)), False if a whole cell is False."""
    return F.max_pool2d(mask.float(), stride, ceil_mode=True) > 0


def fill_padding(x: Tensor, mask: Tensor | None, value: float = 0.0) -> Tensor:
    """(B, C, H, W) -> the same with ``value`` where ``mask`` (B, H, W) is False.

    Zeros make padding look to a convolution like the zero padding at the border of an image.
    """
    if mask is None:
        return x
    # Permuted, because with a mask of one channel masked_fill loses the channels-last layout.
    return x.permute(0, 2, 3, 1).masked_fill(~mask[..., None], value).permute(0, 3, 1, 2)


class Transition(nn.Module):
    """One 3x3 stride-2 convolution and a LayerNorm: (B, C0, H, W) -> (B, N, C).

    A side becomes ceil(side / 2).

    Attributes:
        stride: side of a patch in pixels (or patches) of the input, in every class here.
    """

    stride: ClassVar[int] = 2

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Grid]:
        """(B, C0, H, W) -> (B, N, C) and the grid; ``mask`` (B, H, W) is False at padding."""
        x, grid = tokens_of(self.proj(fill_padding(x, mask)))
        return self.norm(x), grid


class PatchStem(nn.Module):
    """The paper's stem, two 3x3 stride-2 convolutions: (B, in_chans, H, W) -> (B, N, C).

    A patch is 4 x 4 pixels. The convolutions follow each other directly; a LayerNorm ends the stem.
    """

    stride: ClassVar[int] = 4

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim // 2, 3, stride=2, padding=1)
        self.embed = Transition(dim // 2, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Grid]:
        """(B, in_chans, H, W) -> (B, N, C) and the grid; ``mask`` (B, H, W) is False at padding."""
        x = self.proj(fill_padding(x, mask))
        return self.embed(x, None if mask is None else reduce_mask(mask, 2))


class _ConvBnAct(nn.Sequential, Foldable):
    """3x3 convolution, 2x2 max-pooling where asked for, BatchNorm, activation.

    Args:
        in_chans: channels before.
        dim: channels after.
        act_layer: activation.
        pool: pool after the convolution.
        numbered: the pooling has a number as its name, as all other layers. Where it has not, the
            layers after it have the same names as without pooling.
    """

    def __init__(
        self,
        in_chans: int,
        dim: int,
        act_layer: type[nn.Module],
        *,
        pool: bool = False,
        numbered: bool = True,
    ) -> None:
        layers: dict[str, nn.Module] = {"0": nn.Conv2d(in_chans, dim, 3, padding=1, bias=False)}
        if pool:
            layers["1" if numbered else "pool"] = nn.MaxPool2d(2, ceil_mode=True)
        first = 2 if pool and numbered else 1
        layers |= {str(first): nn.BatchNorm2d(dim), str(first + 1): act_layer()}
        super().__init__(OrderedDict(layers))
        self.stride = 2 if pool else 1

    def fold(self, *, half: bool) -> None:
        """Fold the BatchNorm into the convolution; behind a pooling, if it keeps the order."""
        conv, *pool, norm, _ = self
        if fold_batch_norm(conv, norm, positive=bool(pool)):
            name = next(name for name, layer in self.named_children() if layer is norm)
            self.add_module(name, nn.Identity())

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, C0, H, W) -> (B, C, H / stride, W / stride); ``mask`` (B, H, W)."""
        if mask is None:
            return super().forward(x)
        conv, *pool, norm, act = self
        x = conv(fill_padding(x, mask))
        if pool:
            x = pool[0](fill_padding(x, mask, -math.inf))
            mask = reduce_mask(mask, self.stride)
            x = fill_padding(x, mask)
        return act(_norm_without_padding(norm, x, mask))


def _norm_without_padding(norm: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """BatchNorm of (B, C, H, W) with batch statistics of the pixels that are not padding."""
    if not norm.training:
        return norm(x)
    pixels = x.permute(0, 2, 3, 1)
    normed = norm(pixels[mask][..., None, None])
    return pixels.masked_scatter(mask[..., None], normed).permute(0, 3, 1, 2)


def _convolve(convs: nn.Sequential, x: Tensor, mask: Tensor | None) -> Tensor:
    """Dense convolutions in sequence; the mask shrinks with the map."""
    if mask is None:
        return convs(x)
    conv: Any
    for conv in convs:
        x = conv(x, mask)
        mask = reduce_mask(mask, conv.stride)
    return x


class ConvStem(nn.Module):
    """Dense convolutions for small images: (B, in_chans, H, W) -> (B, N, C).

    The second convolution is followed by a max-pooling; with a stride of 4, the first one too. For
    images of 32 x 32 pixels, the same computing time gains more accuracy in such a stem than in
    blocks, and dense convolutions are the fastest layers on a CPU.

    Args:
        in_chans: channels of the image.
        dims: widths of the convolutions, at least two; the last is C.
        act_layer: activation after each BatchNorm.
        stride: side of a patch in pixels, 2 or 4; the weights have the same shapes.

    Raises:
        RecipeError: there is no such stride.
    """

    def __init__(
        self,
        in_chans: int,
        dims: Sequence[int],
        act_layer: type[nn.Module] = nn.GELU,
        stride: int = 2,
    ) -> None:
        super().__init__()
        if stride not in (2, 4):
            raise RecipeError(
                f"stem_stride of a stem for small images must be 2 or 4, not {stride}"
            )
        self.stride = stride
        convs = []
        for index, (before, after) in enumerate(pairwise((in_chans, *dims))):
            # The first pooling is not numbered, so that names are those of a stem of stride 2.
            pool = index == 1 or (index == 0 and stride == 4)
            convs.append(_ConvBnAct(before, after, act_layer, pool=pool, numbered=index == 1))
        self.convs = nn.Sequential(*convs)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Grid]:
        """(B, in_chans, H, W) -> (B, N, C) and the grid; ``mask`` (B, H, W) is False at padding."""
        return tokens_of(_convolve(self.convs, x, mask))


class PoolTransition(nn.Module):
    """Dense convolutions, the first with max-pooling: (B, C0, H, W) -> (B, N, C).

    Args:
        in_chans: channels before.
        dim: channels after.
        num_convs: convolutions, at least one.
        act_layer: activation after each BatchNorm.
    """

    stride: ClassVar[int] = 2

    def __init__(
        self, in_chans: int, dim: int, num_convs: int = 1, act_layer: type[nn.Module] = nn.GELU
    ) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            _ConvBnAct(in_chans, dim, act_layer, pool=True),
            *(_ConvBnAct(dim, dim, act_layer) for _ in range(num_convs - 1)),
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Grid]:
        """(B, C0, H, W) -> (B, N, C) and the grid; ``mask`` (B, H, W) is False at padding."""
        return tokens_of(_convolve(self.convs, x, mask))
