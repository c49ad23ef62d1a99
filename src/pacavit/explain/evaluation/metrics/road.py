"""ROAD: remove and debias, with imputed pixels that do not reveal the shape of the removed area."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.explain.evaluation.metrics.faithfulness import Predict, top_area

__all__ = ["FRACTIONS", "impute", "road"]

FRACTIONS = (0.2, 0.4, 0.6, 0.8)
"""Fractions of the pixels that are removed, over which the score is averaged."""

_NEIGHBORS = ((1 / 12, 1 / 6, 1 / 12), (1 / 6, 0.0, 1 / 6), (1 / 12, 1 / 6, 1 / 12))
_TOLERANCE = 1e-4  # of the residual, relative to the right-hand side
_MAX_ITER = 500


@torch.no_grad()
def impute(images: Tensor, missing: Tensor, *, noise: float = 0.01, seed: int = 0) -> Tensor:
    """Noisy linear imputation: missing pixels become a weighted mean of their neighbors.

    Weights are 1/6 for direct and 1/12 for diagonal neighbors, missing ones included, which makes a
    system of linear equations per image, solved by conjugate gradients. If all pixels of an image
    are missing they become 0.

    Args:
        images: (B, C, H, W).
        missing: (B, H, W) bool.
        noise: standard deviation of the noise added to imputed pixels.
        seed: of the noise.

    Returns:
        (B, C, H, W); pixels that are not missing are unchanged.
    """
    hole = missing[:, None].to(images.dtype)
    kernel = images.new_tensor(_NEIGHBORS)[None, None]
    weight = F.conv2d(torch.ones_like(images[:1, :1]), kernel, padding=1)  # below 1 at the border

    def around(values: Tensor) -> Tensor:
        folded = F.conv2d(values.flatten(0, 1)[:, None], kernel, padding=1)
        return hole * folded.view_as(values)

    known = around(images * (1 - hole))
    filled = torch.zeros_like(images)
    residual, direction = known, known
    square = _dot(residual, residual)
    enough = _TOLERANCE**2 * square
    for _ in range(_MAX_ITER):
        if (square <= enough).all():
            break
        image = hole * weight * direction - around(direction)
        # The direction of images that have converged is 0.
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
    fractions: tuple[float, ...] = FRACTIONS,
    noise: float = 0.01,
    seed: int = 0,
) -> Tensor:
    """Remove and debias: (B,), from -0.5 to 0.5, higher is better.

    Half the difference between the class probability without the least important pixels and that
    without the most important ones, averaged over fractions of removed pixels. Rong et al., "A
    consistent and efficient evaluation strategy for attribution methods", ICML 2022.

    Args:
        predict: from images to logits.
        images: (B, 3, H, W), normalized.
        maps: (B, H, W), higher is more important.
        classes: (B,) int64, the classes of the probabilities.
        fractions: of the pixels that are removed.
        noise: see ``impute``.
        seed: of the noise, and of the random order among equal values.
    """
    found = torch.zeros(len(images), device=images.device)
    for fraction in fractions:
        for sign in (1, -1):
            removed = impute(
                images, top_area(sign * maps, fraction, seed=seed), noise=noise, seed=seed
            )
            probabilities = predict(removed).float().softmax(1)
            found -= sign * probabilities.gather(1, classes[:, None])[:, 0]
    return found / (2 * len(fractions))
