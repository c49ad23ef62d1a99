"""Does a network need what a map calls important: deletion, insertion, keeping and removing."""

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
    "mean_colour",
    "perturbation_curves",
    "predicted_right",
    "top_area",
]

Predict: TypeAlias = Callable[[Tensor], Tensor]
"""Normalised images (B, 3, H, W) to logits (B, K)."""


def mean_colour(images: Tensor) -> Tensor:
    """Each image's own mean colour everywhere: (B, 3, H, W) -> (B, 3, H, W)."""
    return images.mean((2, 3), keepdim=True).expand_as(images)


def blurred(images: Tensor) -> Tensor:
    """Images without detail, a Gaussian of a tenth of the longer side: (B, 3, H, W) -> the same.

    RISE (Petsiuk et al., BMVC 2018) inserts into blurred images, because hard edges of inserted
    pixels would be evidence of their own.
    """
    longer, shorter = max(images.shape[2:]), min(images.shape[2:])
    reach = min(longer // 4, (shorter - 1) // 2)  # what reflection at the edge allows
    side, sigma = 2 * reach + 1, [longer / 10] * 2
    # One axis after the other is the same, and several times as quick.
    return V.gaussian_blur(V.gaussian_blur(images, [1, side], sigma), [side, 1], sigma)


BASELINES: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"mean": mean_colour, "blur": blurred}
)
"""What stands where pixels are taken away, by name."""


def top_area(maps: Tensor, area: float, *, seed: int = 0) -> Tensor:
    """The highest pixels of a map, the same number in every image: (B, H, W) -> bool.

    Args:
        maps: higher is more important; NaN is least of all.
        area: share of the pixels, 0 to 1.
        seed: of the order among equal values, which coarse maps have many of.
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
    """Probabilities of classes while pixels go, or come, in the order of a map: (B, steps + 1).

    Deletion and insertion of RISE (Petsiuk et al., BMVC 2018); both ends, the whole image and
    nothing of it, are on the curve.

    Args:
        predict: the network.
        images: (B, 3, H, W), normalised.
        maps: (B, H, W), higher is more important.
        classes: (B,) int64, whose probability is followed.
        insert: pixels come, into the baseline; else they go, and the baseline stays.
        baseline: by default ``blurred`` for insertion and ``mean_colour`` for deletion.
        steps: of equal numbers of pixels.
        least_first: begin with the least important ones.
        seed: of the order among equal values.
    """
    start = (baseline or (blurred if insert else mean_colour))(images)
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
    """Trapezoid over the share of the pixels: (B, steps + 1) -> (B,)."""
    return torch.trapezoid(curves, dx=1 / (curves.shape[1] - 1), dim=1)


@torch.no_grad()
def predicted_right(
    predict: Predict,
    images: Tensor,
    masks: Tensor,
    classes: Tensor,
    *,
    keep: bool,
    baseline: Callable[[Tensor], Tensor] = mean_colour,
) -> Tensor:
    """Whether a class is still the likeliest with the masked area only, or without it: (B,) bool.

    Args:
        predict: the network.
        images: (B, 3, H, W), normalised.
        masks: (B, H, W) bool.
        classes: (B,) int64.
        keep: show the masked area only; else all but it.
        baseline: what stands elsewhere.
    """
    shown = masks[:, None] if keep else ~masks[:, None]
    return predict(torch.where(shown, images, baseline(images))).argmax(1) == classes


def _ranks(maps: Tensor, seed: int) -> Tensor:
    """0 for the highest pixel of an image, 1 for the next; equal values in a drawn order."""
    values = maps.flatten(1).nan_to_num(nan=-torch.inf)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(values.shape[1], generator=generator).to(maps.device)
    order = drawn[values[:, drawn].argsort(dim=1, descending=True, stable=True)]
    position = torch.arange(values.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, position).view(maps.shape)
