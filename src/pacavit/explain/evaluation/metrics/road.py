"""Removing pixels without leaving a trace of their shape: ROAD."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.explain.evaluation.metrics.faithfulness import Predict, top_area

__all__ = ["SHARES", "impute", "road"]

SHARES = (0.2, 0.4, 0.6, 0.8)
"""Of the pixels, that are removed one after the other."""

_NEIGHBOURS = ((1 / 12, 1 / 6, 1 / 12), (1 / 6, 0.0, 1 / 6), (1 / 12, 1 / 6, 1 / 12))
_ENOUGH = 1e-4  # residual, of the right side
_ROUNDS = 500


@torch.no_grad()
def impute(images: Tensor, missing: Tensor, *, noise: float = 0.01, seed: int = 0) -> Tensor:
    """Noisy linear imputation: missing pixels become the mean of what is around them.

    Each is 1/6 of the pixels beside it and 1/12 of those across, missing ones included: one system
    of linear equations an image, solved by conjugate gradients. The pixels of an image without any
    left become 0.

    Args:
        images: (B, C, H, W).
        missing: (B, H, W) bool.
        noise: standard deviation of what is added to imputed pixels.
        seed: of the noise.

    Returns:
        (B, C, H, W), with the other pixels as they were.
    """
    hole = missing[:, None].to(images.dtype)
    kernel = images.new_tensor(_NEIGHBOURS)[None, None]
    weight = F.conv2d(torch.ones_like(images[:1, :1]), kernel, padding=1)  # less at the edge

    def around(values: Tensor) -> Tensor:
        folded = F.conv2d(values.flatten(0, 1)[:, None], kernel, padding=1)
        return hole * folded.view_as(values)

    known = around(images * (1 - hole))
    filled = torch.zeros_like(images)
    residual, direction = known, known
    square = _dot(residual, residual)
    enough = _ENOUGH**2 * square
    for _ in range(_ROUNDS):
        if (square <= enough).all():
            break
        image = hole * weight * direction - around(direction)
        # Images that are done have a direction of 0.
        step = square / _dot(direction, image).clamp(min=1e-30)
        filled = filled + step * direction
        residual = residual - step * image
        before, square = square, _dot(residual, residual)
        direction = residual + square / before.clamp(min=1e-30) * direction
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(images.shape, generator=generator).to(images)
    return torch.where(missing[:, None], filled + noise * drawn, images)


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum((2, 3), keepdim=True)


@torch.no_grad()
def road(
    predict: Predict,
    images: Tensor,
    maps: Tensor,
    classes: Tensor,
    *,
    shares: tuple[float, ...] = SHARES,
    noise: float = 0.01,
    seed: int = 0,
) -> Tensor:
    """Remove and debias: (B,), from -0.5 to 0.5, higher is better.

    Half of the probability that is left without the least important pixels, minus that without the
    most important ones; the mean over shares of removed pixels. Rong et al., "A consistent and
    efficient evaluation strategy for attribution methods", ICML 2022.

    Args:
        predict: the network.
        images: (B, 3, H, W), normalised.
        maps: (B, H, W), higher is more important.
        classes: (B,) int64, whose probability is followed.
        shares: of the pixels that are removed.
        noise: see ``impute``.
        seed: of the noise, and of the order among equal values.
    """
    found = torch.zeros(len(images), device=images.device)
    for share in shares:
        for sign in (1, -1):
            removed = impute(
                images, top_area(sign * maps, share, seed=seed), noise=noise, seed=seed
            )
            probabilities = predict(removed).float().softmax(1)
            found -= sign * probabilities.gather(1, classes[:, None])[:, 0]
    return found / (2 * len(shares))
