"""UperNet: pooled context at the coarsest map, and a feature pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from pacavit.errors import RecipeError
from pacavit.heads.base import HEADS, HeadOutput, SegmentationHead
from pacavit.heads.layers import ConvNormAct, Norm, check_options, classifier, pool_to_cells
from pacavit.utils.layout import enlarge

__all__ = ["UperNetHead"]

_AUXILIARY_CHANNELS = 256


@HEADS.register("upernet")
class UperNetHead(SegmentationHead):
    """Pyramid pooling and a feature pyramid: maps -> logits (B, K, H, W) of the finest.

    Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018; in the layout of
    mmsegmentation. Averages of the coarsest map over 1 x 1, 2 x 2, 3 x 3 and 6 x 6 cells are added
    to it as channels (pyramid pooling: Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017).
    The result is added to the finer maps from the top down, and all maps are fused at the size of
    the finest.

    A second, smaller head on the last map but one is supervised in training
    (``supervised["auxiliary"]``). In evaluation it is not computed.

    Args:
        in_channels: of each map, finest first; at least two maps.
        strides: pixels of the image from one cell of each map to the next.
        num_classes: K.
        channels: width of all layers.
        auxiliary: build the auxiliary head.
        pool_sizes: cells along a side of the pooled maps.
        dropout: probability to drop a whole channel before the last layer of each head.
        norm: "batch", or "group" for batches of one or two images.
        eps: of the norms.
    """

    loss_weights: ClassVar[Mapping[str, float]] = {"auxiliary": 0.4}
    mean_over_labeled: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        channels: int = 512,
        auxiliary: bool = True,
        pool_sizes: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
        norm: str = "batch",
        eps: float = 1e-5,
    ) -> None:
        super().__init__(in_channels, strides, num_classes)
        check_options("upernet", strides, channels, dropout, least_maps=2)
        if not all(size >= 1 for size in pool_sizes):
            raise RecipeError(f"pool_sizes of head 'upernet' must be 1 or more, not {pool_sizes}")
        *finer, coarsest = in_channels
        norms = Norm(norm, eps)
        self.pool_sizes = tuple(pool_sizes)
        self.pooled = nn.ModuleList(ConvNormAct(coarsest, channels, norms) for _ in self.pool_sizes)
        self.context = ConvNormAct(coarsest + len(self.pool_sizes) * channels, channels, norms, 3)
        self.laterals = nn.ModuleList(ConvNormAct(number, channels, norms) for number in finer)
        self.smooth = nn.ModuleList(ConvNormAct(channels, channels, norms, 3) for _ in finer)
        self.fuse = ConvNormAct(len(in_channels) * channels, channels, norms, 3)
        self.drop = nn.Dropout2d(dropout)
        self.classifier = classifier(channels, num_classes)
        self.auxiliary = (
            nn.Sequential(
                ConvNormAct(finer[-1], _AUXILIARY_CHANNELS, norms, 3),
                nn.Dropout2d(dropout),
                classifier(_AUXILIARY_CHANNELS, num_classes),
            )
            if auxiliary
            else None
        )

    def forward(self, maps: Sequence[Tensor]) -> HeadOutput:
        """Maps (B, C_i, H_i, W_i), finest first -> logits (B, K, H, W)."""
        *finer, coarsest = maps
        x = self._context(coarsest)
        levels = [x]
        for lateral, smooth, each in reversed(
            list(zip(self.laterals, self.smooth, finer, strict=True))
        ):
            projected = lateral(each)
            x = projected + enlarge(x, projected.shape[2:])
            levels.append(smooth(x))
        *coarser, finest = levels
        enlarged = [enlarge(level, finest.shape[2:]) for level in reversed(coarser)]
        fused = self.fuse(torch.cat([finest, *enlarged], 1))
        logits = self.classifier(self.drop(fused))
        if self.auxiliary is None or not self.training:
            return HeadOutput(logits, {})
        return HeadOutput(logits, {"auxiliary": self.auxiliary(finer[-1])})

    def classifiers(self) -> Sequence[nn.Module]:
        """The last layers of both heads."""
        return (
            (self.classifier,) if self.auxiliary is None else (self.classifier, self.auxiliary[2])
        )

    def _context(self, x: Tensor) -> Tensor:
        """Pyramid pooling: (B, C0, H, W) -> (B, C, H, W)."""
        pooled = [
            enlarge(layer(pool_to_cells(x, size)), x.shape[2:])
            for layer, size in zip(self.pooled, self.pool_sizes, strict=True)
        ]
        context: Tensor = self.context(torch.cat([x, *pooled], 1))
        return context
