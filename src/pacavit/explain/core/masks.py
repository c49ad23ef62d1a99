"""Binary masks of maps, and images with only the masked area, or without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from pacavit.data.placement import Placement
from pacavit.errors import PacavitError, UnknownNameError

__all__ = [
    "THRESHOLDS",
    "binary_mask",
    "keep",
    "mask_area",
    "mass",
    "otsu",
    "quantile",
    "remove",
    "restored_mask",
]

_BINS = 256
_GRAY = 128
_SAMPLED = 512  # pixels per side from which the threshold of a large image is computed


def otsu(maps: Tensor) -> Tensor:
    """The threshold that splits values into two groups with the least variance inside: (B,).

    Otsu, "A threshold selection method from gray-level histograms", 1979; with 256 bins.

    Args:
        maps: (B, n), finite.
    """
    low, high = maps.amin(1, keepdim=True), maps.amax(1, keepdim=True)
    span = (high - low).clamp(min=torch.finfo(maps.dtype).tiny)
    bins = ((maps - low) / span * _BINS).long().clamp(max=_BINS - 1)
    count = maps.new_zeros(maps.shape[0], _BINS).scatter_add_(1, bins, torch.ones_like(maps))
    center = torch.arange(_BINS, device=maps.device) + 0.5
    below, total = count.cumsum(1), (count * center).cumsum(1)
    above = below[:, -1:] - below
    between = (total / below.clamp(min=1) - (total[:, -1:] - total) / above.clamp(min=1)).square()
    # Between two distant groups all thresholds are equally good; take the middle one.
    best = between * below * above
    ties = best >= best.amax(1, keepdim=True) * (1 - 1e-6)
    middle = (ties * (center + 0.5)).sum(1) / ties.sum(1)
    return low[:, 0] + span[:, 0] * middle / _BINS


def quantile(maps: Tensor, area: float = 0.25) -> Tensor:
    """The threshold that a fraction ``area`` of the values reaches: (B,).

    Args:
        maps: (B, n), finite.
        area: fraction of the pixels, 0 to 1.
    """
    rank = max(1, round(area * maps.shape[1]))
    return maps.topk(rank, dim=1).values[:, -1]


def mass(maps: Tensor, fraction: float = 0.5) -> Tensor:
    """The highest threshold for which the values at or above it have a fraction of the sum: (B,).

    Args:
        maps: (B, n), finite and not negative.
        fraction: of the sum, 0 to 1.
    """
    values = maps.sort(dim=1, descending=True).values
    sums = values.cumsum(1)
    enough = (sums < fraction * sums[:, -1:]).sum(1, keepdim=True).clamp(max=maps.shape[1] - 1)
    return values.gather(1, enough)[:, 0]


THRESHOLDS: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {"otsu": otsu, "quantile": quantile, "mass": mass}
)
"""The thresholds of ``binary_mask`` by name."""


def binary_mask(maps: Tensor, threshold: str = "otsu", value: float | None = None) -> Tensor:
    """The area in which a map is high: (B, H, W) -> (B, H, W) bool.

    Pixels that are 0, negative or NaN are never inside, so a map of zeros has an empty mask.

    Args:
        maps: of clusters, of attention, or of a class.
        threshold: "otsu"; "quantile": the highest pixels, a fraction ``value`` (0.25) of the area;
            "mass": the smallest area with a fraction ``value`` (0.5) of the sum. Pixels equal to
            the threshold are inside.
        value: 0 to 1; None takes the default; "otsu" has no value.

    Raises:
        UnknownNameError: there is no such threshold.
        PacavitError: the value is out of range, or the threshold takes none.
    """
    return _high(maps, _levels(maps, threshold, value))


def restored_mask(
    heatmap: Tensor, placement: Placement, threshold: str = "otsu", value: float | None = None
) -> Tensor:
    """``binary_mask`` of one map over a whole image: (H, W) -> (H, W) bool.

    The threshold is computed from the pixels inside the network's input; if there are 1024 or more
    per side, from a regular sample of 512 to 1023 per side, which is fast for photographs. Maps are
    no finer than the input, so the area of the mask changes by less than 0.01 of the input.

    Args:
        heatmap: result of ``Placement.restore``.
        placement: where in the image the network's input lies.
        threshold: name of a threshold, see ``binary_mask``.
        value: its parameter, see ``binary_mask``.

    Raises:
        PacavitError: the threshold is wrong.
    """
    rows, columns = (_sampled(pixels) for pixels in placement.seen_pixels())
    return _high(heatmap[None], _levels(heatmap[rows][:, columns][None], threshold, value))[0]


def mask_area(mask: Tensor, placement: Placement) -> float:
    """The area of a mask as a fraction of the network's input, 0 to 1.

    Args:
        mask: (H, W) bool, of the whole image.
        placement: where in the image the network's input lies.
    """
    rows, columns = placement.seen_pixels()
    return float(mask.sum()) / max(1, len(rows) * len(columns))


def keep(image: Tensor, mask: Tensor, fill: int = _GRAY) -> Tensor:
    """The image inside the mask, gray outside: (3, H, W) uint8 and (H, W) bool -> (3, H, W)."""
    return image.masked_fill(~mask, fill)


def remove(image: Tensor, mask: Tensor, fill: int = _GRAY) -> Tensor:
    """The image outside the mask, gray inside: (3, H, W) uint8 and (H, W) bool -> (3, H, W)."""
    return keep(image, ~mask, fill)


def _levels(maps: Tensor, threshold: str, value: float | None) -> Tensor:
    """The threshold of each map: (B, H, W) -> (B,), infinite for maps without data."""
    if threshold not in THRESHOLDS:
        raise UnknownNameError("threshold", threshold, THRESHOLDS)
    if value is not None and (threshold == "otsu" or not 0 < value <= 1):
        raise PacavitError(
            f"threshold {threshold!r} cannot have the value {value!r}: otsu takes none, quantile "
            "and mass one above 0 and up to 1"
        )
    levels = maps.new_full(maps.shape[:1], torch.inf)
    for image, heatmap in enumerate(maps):
        values = heatmap[heatmap.isfinite()]
        if len(values):
            options = [] if value is None else [value]
            levels[image] = THRESHOLDS[threshold](values[None].clamp(min=0), *options)[0]
    return levels


def _high(maps: Tensor, levels: Tensor) -> Tensor:
    return (maps >= levels[:, None, None]) & (maps > 0) & (maps < torch.inf)


def _sampled(pixels: Tensor) -> Tensor:
    step = max(1, len(pixels) // _SAMPLED)
    return pixels[step // 2 :: step]
