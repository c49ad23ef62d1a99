"""Mixup and cutmix: images and labels mixed in pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pacavit.data import Batch, SampleRandom
from pacavit.tasks.classification.config import MixConfig

__all__ = ["Mix"]

_QUANTILES = 4096


class Mix:
    """Mixes pairs of images in a batch; labels become target probabilities (B, num_classes).

    The first image is mixed with the second, the third with the fourth and so on, each pair with
    its own random numbers, as in timm's ``Mixup`` with ``mode="pair"``. They are those of the
    pair's first image, so splitting a batch between pairs changes nothing. If the number of images
    is odd, the last one is not mixed. The loss applies label smoothing.

    Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018. Yun et al., "CutMix:
    Regularization strategy to train strong classifiers with localizable features", ICCV 2019.

    Args:
        config: kinds, strengths and probabilities.
        num_classes: K.
        epochs: of the run; after the fraction ``config.until`` of them batches are unchanged.
    """

    def __init__(self, config: MixConfig, num_classes: int, epochs: int) -> None:
        self.config, self.num_classes = config, num_classes
        self.end = config.until * epochs
        self.mixup = _beta_quantiles(config.mixup) if config.mixup else None
        self.cutmix = _beta_quantiles(config.cutmix) if config.cutmix else None

    def __call__(self, batch: Batch, random: SampleRandom) -> Batch:
        """Mix a batch with the random numbers of its samples."""
        if random.epoch >= self.end:
            return batch
        num_pairs = len(batch) // 2
        first, second = slice(0, 2 * num_pairs, 2), slice(1, 2 * num_pairs, 2)
        draws = SampleRandom(random.seed, random.epoch, random.indices[first])
        height, width = batch.images.shape[2:]
        own = self._own_weights(draws, height, width).to(batch.images.device)
        images = _blend(batch.images, first, second, own)
        # Counted in pixels, because a rectangle may extend beyond the edge.
        kept = own.mean((1, 2, 3))[:, None]
        labels = batch.targets
        if labels.ndim == 1:
            labels = F.one_hot(labels, self.num_classes)
        return replace(batch, images=images, targets=_blend(labels.float(), first, second, kept))

    def _own_weights(self, draws: SampleRandom, height: int, width: int) -> Tensor:
        """(pairs, 1, height, width): the weight of an image's own pixels, 0..1."""
        own = torch.ones(len(draws.indices), 1, height, width, device=draws.indices.device)
        if self.mixup is not None:
            own = own * _draw(self.mixup, draws, "mixup")[:, None, None]
        if self.cutmix is not None:
            area = _draw(self.cutmix, draws, "cutmix")
            outside = ~_rectangle(1 - area, draws, height, width)
            chance = 1.0 if self.mixup is None else self.config.switch_prob
            chosen = draws.uniform("mix switch")[:, :, None, None] < chance
            own = torch.where(chosen, outside.float(), own)
        mixed = draws.uniform("mix")[:, :, None, None] < self.config.prob
        return torch.where(mixed, own, 1.0)


def _blend(values: Tensor, first: slice, second: slice, own: Tensor) -> Tensor:
    """Each of a pair becomes a mean of itself, with weight ``own``, and the other; any layout."""
    blended = values.clone()
    blended[first] = torch.lerp(values[second], values[first], own)
    blended[second] = torch.lerp(values[first], values[second], own)
    return blended


def _beta_quantiles(alpha: float) -> Tensor:
    """Equally probable values of Beta(alpha, alpha), from which a look-up draws on any device."""
    from scipy.special import betaincinv  # loaded only where images are mixed

    levels = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    return torch.from_numpy(betaincinv(alpha, alpha, levels)).float()


def _draw(quantiles: Tensor, draws: SampleRandom, stream: str) -> Tensor:
    """Draw a quantile for each pair: (pairs, 1)."""
    return quantiles.to(draws.indices.device)[draws.integers(stream, 0, _QUANTILES)]


def _rectangle(area: Tensor, draws: SampleRandom, height: int, width: int) -> Tensor:
    """(pairs, 1) areas as fractions of the image -> (pairs, 1, height, width) bool.

    The rectangle has the aspect ratio of the image and is centered on a random pixel; it may extend
    beyond the edge.
    """
    inside = []
    for length, stream in ((height, "cutmix rows"), (width, "cutmix columns")):
        side = (length * area.sqrt()).long()
        start = draws.integers(stream, 0, length) - side // 2
        positions = torch.arange(length, device=draws.indices.device)
        inside.append((positions >= start) & (positions < start + side))
    return inside[0][:, None, :, None] & inside[1][:, None, None, :]
