"""Binary masks of maps, and the picture with only the masked area, or without it."""

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
_SAMPLED = 512  # pixels a side are enough to find the threshold of a large picture


def otsu(maps: Tensor) -> Tensor:
    """The threshold that splits values into two groups of least variance: (B,).

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
    # Between two distant groups all thresholds are equally good; take the one in the middle.
    best = between * below * above
    ties = best >= best.amax(1, keepdim=True) * (1 - 1e-6)
    middle = (ties * (center + 0.5)).sum(1) / ties.sum(1)
    return low[:, 0] + span[:, 0] * middle / _BINS


def quantile(maps: Tensor, area: float = 0.25) -> Tensor:
    """The threshold that the largest values, a share ``area`` of all, reach: (B,).

    Args:
        maps: (B, n), finite.
        area: share of the pixels, 0 to 1.
    """
    rank = max(1, round(area * maps.shape[1]))
    return maps.topk(rank, dim=1).values[:, -1]


def mass(maps: Tensor, share: float = 0.5) -> Tensor:
    """The threshold above which the values have a share of the whole sum, or just more: (B,).

    Args:
        maps: (B, n), finite and not negative.
        share: of the sum, 0 to 1.
    """
    values = maps.sort(dim=1, descending=True).values
    sums = values.cumsum(1)
    enough = (sums < share * sums[:, -1:]).sum(1, keepdim=True).clamp(max=maps.shape[1] - 1)
    return values.gather(1, enough)[:, 0]


THRESHOLDS: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {"otsu": otsu, "quantile": quantile, "mass": mass}
)
"""What ``binary_mask`` takes, by name."""


def binary_mask(maps: Tensor, threshold: str = "otsu", value: float | None = None) -> Tensor:
    """The area in which a map is high: (B, H, W) -> (B, H, W) bool.

    What is 0, negative or no data (NaN) is never inside, so a map of zeros has an empty mask.

    Args:
        maps: of clusters, of attention, or of a class.
        threshold: "otsu"; "quantile": the highest ``value`` (0.25) of the area; "mass": the
            smallest area with ``value`` (0.5) of the sum. Values equal to the threshold are in.
        value: 0 to 1; none for "otsu".

    Raises:
        UnknownNameError: there is no such threshold.
        PacavitError: the value is out of range, or the threshold takes none.
    """
    return _high(maps, _levels(maps, threshold, value))


def restored_mask(
    heat: Tensor, placement: Placement, threshold: str = "otsu", value: float | None = None
) -> Tensor:
    """``binary_mask`` of one map over a whole image, quick on photographs: (H, W) -> (H, W) bool.

    The threshold is computed from the pixels inside the network's input; with 1024 or more per
    side, from a regular sample of 512 to 1023 per side. Maps have no finer detail than the input,
    so the area differs by less than 0.01 of the input.

    Args:
        heat: as ``Placement.restore`` makes it.
        placement: where in the image the network's input lies.
        threshold: name of a threshold, see ``binary_mask``.
        value: its parameter, see ``binary_mask``.

    Raises:
        PacavitError: the threshold is wrong.
    """
    rows, columns = (_sampled(pixels) for pixels in placement.seen_pixels())
    return _high(heat[None], _levels(heat[rows][:, columns][None], threshold, value))[0]


def mask_area(mask: Tensor, placement: Placement) -> float:
    """The area of a mask as a fraction of the network's input, 0 to 1.

    Args:
        mask: (H, W) bool, of the whole image.
        placement: where in the image the network's input lies.
    """
    rows, columns = placement.seen_pixels()
    return float(mask.sum()) / max(1, len(rows) * len(columns))


def keep(image: Tensor, mask: Tensor, fill: int = _GRAY) -> Tensor:
    """The picture inside the mask, gray elsewhere: (3, H, W) uint8 and (H, W) bool -> (3, H, W)."""
    return image.masked_fill(~mask, fill)


def remove(image: Tensor, mask: Tensor, fill: int = _GRAY) -> Tensor:
    """The picture outside the mask, gray inside: (3, H, W) uint8 and (H, W) bool -> (3, H, W)."""
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
    for image, heat in enumerate(maps):
        values = heat[heat.isfinite()]
        if len(values):
            options = [] if value is None else [value]
            levels[image] = THRESHOLDS[threshold](values[None].clamp(min=0), *options)[0]
    return levels


def _high(maps: Tensor, levels: Tensor) -> Tensor:
    return (maps >= levels[:, None, None]) & (maps > 0) & (maps < torch.inf)


def _sampled(pixels: Tensor) -> Tensor:
    step = max(1, len(pixels) // _SAMPLED)
    return pixels[step // 2 :: step]
