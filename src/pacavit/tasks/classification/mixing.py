"""Images blended into one another, and their labels with them: mixup and cutmix."""

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
    """Mixes neighbors in a batch: labels become target probabilities (B, num_classes).

    The first image with the second, the third with the fourth and so on, each pair with draws of
    its own, like timm's ``Mixup`` with ``mode="pair"``. Draws are those of the pair's first image
    in its epoch, so a batch may be cut between pairs without any change. A last image without a
    neighbor stays as it is. Label smoothing is left to the loss.

    Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018. Yun et al., "CutMix:
    Regularization strategy to train strong classifiers with localizable features", ICCV 2019.

    Args:
        config: which mixes, how strong and how often.
        num_classes: K.
        epochs: of the run; after the fraction ``config.until`` of them batches pass unchanged.
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
        own = self._own_part(draws, height, width).to(batch.images.device)
        images = _blend(batch.images, first, second, own)
        # What pixels were kept is exact also for a rectangle that reached over the edge.
        share = own.mean((1, 2, 3))[:, None]
        labels = batch.targets
        if labels.ndim == 1:
            labels = F.one_hot(labels, self.num_classes)
        return replace(batch, images=images, targets=_blend(labels.float(), first, second, share))

    def _own_part(self, draws: SampleRandom, height: int, width: int) -> Tensor:
        """(pairs, 1, height, width): how much of each pixel an image of a pair keeps."""
        own = torch.ones(len(draws.indices), 1, height, width, device=draws.indices.device)
        if self.mixup is not None:
            own = own * _draw(self.mixup, draws, "mixup")[:, None, None]
        if self.cutmix is not None:
            share = _draw(self.cutmix, draws, "cutmix")
            outside = ~_rectangle(1 - share, draws, height, width)
            chance = 1.0 if self.mixup is None else self.config.switch_prob
            chosen = draws.uniform("mix switch")[:, :, None, None] < chance
            own = torch.where(chosen, outside.float(), own)
        mixed = draws.uniform("mix")[:, :, None, None] < self.config.prob
        return torch.where(mixed, own, 1.0)


def _blend(values: Tensor, first: slice, second: slice, own: Tensor) -> Tensor:
    """Each of a pair becomes ``own`` parts of itself and the rest of the other; any layout."""
    blended = values.clone()
    blended[first] = torch.lerp(values[second], values[first], own)
    blended[second] = torch.lerp(values[first], values[second], own)
    return blended


def _beta_quantiles(alpha: float) -> Tensor:
    """Equally likely values of Beta(alpha, alpha): one table look-up draws from it anywhere."""
    from scipy.special import betaincinv  # loaded only where images are mixed

    levels = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    return torch.from_numpy(betaincinv(alpha, alpha, levels)).float()


def _draw(quantiles: Tensor, draws: SampleRandom, stream: str) -> Tensor:
    """(pairs, 1)."""
    return quantiles.to(draws.indices.device)[draws.integers(stream, 0, _QUANTILES)]


def _rectangle(area: Tensor, draws: SampleRandom, height: int, width: int) -> Tensor:
    """(pairs, 1) areas as parts of the image -> (pairs, 1, height, width) bool.

    The rectangle has the aspect of the image and its center at any pixel; it may reach over the
    edge.
    """
    inside = []
    for length, stream in ((height, "cutmix rows"), (width, "cutmix columns")):
        side = (length * area.sqrt()).long()
        start = draws.integers(stream, 0, length) - side // 2
        positions = torch.arange(length, device=draws.indices.device)
        inside.append((positions >= start) & (positions < start + side))
    return inside[0][:, None, :, None] & inside[1][:, None, None, :]
