"""Faithfulness of maps: predictions on images whose pixels are altered in the order of a map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as V

__all__ = [
    "BASELINES",
    "Predict",
    "area_under_curve",
    "blurred",
    "mean_color",
    "perturbation_curves",
    "still_top1",
    "top_area",
]

Predict: TypeAlias = Callable[[Tensor], Tensor]
"""Normalized images (B, 3, H, W) to logits (B, K)."""


def mean_color(images: Tensor) -> Tensor:
    """Images filled with their mean color: (B, 3, H, W) -> (B, 3, H, W)."""
    return images.mean((2, 3), keepdim=True).expand_as(images)


def blurred(images: Tensor) -> Tensor:
    """Images blurred by a Gaussian of a tenth of their longer side: (B, 3, H, W) -> (B, 3, H, W).

    RISE (Petsiuk et al., BMVC 2018) inserts pixels into blurred images, because on a plain ground
    the hard edges of the inserted area would change the prediction.
    """
    longer, shorter = max(images.shape[2:]), min(images.shape[2:])
    reach = min(longer // 4, (shorter - 1) // 2)  # reflection padding allows no more
    side, sigma = 2 * reach + 1, [longer / 10] * 2
    # One axis after the other: the same result, several times as fast.
    return V.gaussian_blur(V.gaussian_blur(images, [1, side], sigma), [side, 1], sigma)


BASELINES: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"mean": mean_color, "blur": blurred}
)
"""Replacements for removed pixels, by name."""


def top_area(maps: Tensor, area: float, *, seed: int = 0) -> Tensor:
    """The highest pixels of each map, the same number for every image: (B, H, W) -> bool.

    Args:
        maps: higher is more important; NaN is the least important.
        area: fraction of the pixels, 0 to 1.
        seed: of the random order among equal values, which are common in coarse maps.
    """
    rank = _ranks(maps, seed)
    return rank < round(area * maps[0].numel())


@torch.no_grad()
def perturbation_curves(
    predict: Predict,
    images: Tensor,
    maps: Tensor,
    classes: Tensor,
    *,
    insert: bool,
    baseline: Callable[[Tensor], Tensor] | None = None,
    steps: int = 20,
    least_first: bool = False,
    seed: int = 0,
) -> Tensor:
    """Class probabilities while pixels are deleted or inserted in the order of a map.

    The deletion and insertion curves of RISE (Petsiuk et al., BMVC 2018), (B, steps + 1), from the
    whole image to the baseline or the other way.

    Args:
        predict: from images to logits.
        images: (B, 3, H, W), normalized.
        maps: (B, H, W), higher is more important.
        classes: (B,) int64, the classes of the probabilities.
        insert: pixels of the image enter the baseline; else the baseline replaces them.
        baseline: by default ``blurred`` for insertion and ``mean_color`` for deletion.
        steps: number of steps, of equally many pixels.
        least_first: begin with the least important pixels.
        seed: of the random order among equal values.
    """
    start = (baseline or (blurred if insert else mean_color))(images)
    rank = _ranks(-maps if least_first else maps, seed)
    points = []
    for step in range(steps + 1):
        touched = (rank < round(step / steps * maps[0].numel()))[:, None]
        mixed = (
            torch.where(touched, images, start) if insert else torch.where(touched, start, images)
        )
        probabilities = predict(mixed).float().softmax(1)
        points.append(probabilities.gather(1, classes[:, None])[:, 0])
    return torch.stack(points, 1)


def area_under_curve(curves: Tensor) -> Tensor:
    """Trapezoid rule over the fraction of altered pixels: (B, steps + 1) -> (B,)."""
    return torch.trapezoid(curves, dx=1 / (curves.shape[1] - 1), dim=1)


@torch.no_grad()
def still_top1(
    predict: Predict,
    images: Tensor,
    masks: Tensor,
    classes: Tensor,
    *,
    keep: bool,
    baseline: Callable[[Tensor], Tensor] = mean_color,
) -> Tensor:
    """Whether a class is still the top-1 class with only the masked area, or without it: (B,) bool.

    Args:
        predict: from images to logits.
        images: (B, 3, H, W), normalized.
        masks: (B, H, W) bool.
        classes: (B,) int64.
        keep: keep only the masked area; else remove it.
        baseline: replaces the removed pixels.
    """
    shown = masks[:, None] if keep else ~masks[:, None]
    return predict(torch.where(shown, images, baseline(images))).argmax(1) == classes


def _ranks(maps: Tensor, seed: int) -> Tensor:
    """Rank of each pixel, 0 for the highest; equal values in a random order: (B, H, W) int64."""
    values = maps.flatten(1).nan_to_num(nan=-torch.inf)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(values.shape[1], generator=generator).to(maps.device)
    order = drawn[values[:, drawn].argsort(dim=1, descending=True, stable=True)]
    position = torch.arange(values.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, position).view(maps.shape)
