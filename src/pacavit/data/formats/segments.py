"""Masks of objects as annotation files write them: polygons and run lengths, checked.

What stands in a file may be wrong, or made to do harm. Nothing reaches the native decoder before
its sizes and sums are known to be right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray

from pacavit.data.formats.rle import Rle, encode_masks

__all__ = ["SegmentError", "from_polygons", "read_segment", "tight_box"]

_MIN_NUMBERS = 6  # of a polygon: three corners
_MAX_OUTLINE = 1_000_000  # pixels; the native code takes 80 bytes for each
_BIAS, _BITS, _SIGN, _MORE = 48, 5, 0x10, 0x20  # of COCO's compressed counts
_MAX_GROUPS = 6  # characters of a count below 2 ** 29, more than an image has pixels


class SegmentError(ValueError):
    """A mask that cannot be used.

    Args:
        kind: a key of ``data.formats.faults.FAULTS``: "no_mask", "mask" or "mask_size".
        detail: what is wrong with it.
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(detail or kind)
        self.kind, self.detail = kind, detail


def read_segment(segment: Any, size: tuple[int, int]) -> Rle:
    """The mask of an object of COCO's field "segmentation".

    Args:
        segment: value of any JSON; valid are a list of polygons, and an object with "size" and
            "counts", either as numbers or compressed.
        size: (height, width) of the image.

    Raises:
        SegmentError: there is no mask, it cannot be read, or has another size.
    """
    if segment is None or segment in ([], {}, ""):
        raise SegmentError("no_mask")
    if isinstance(segment, list):
        return from_polygons(segment, size)
    if isinstance(segment, dict):
        return _from_runs(segment, size)
    raise SegmentError("mask", "neither polygons nor run lengths")


def from_polygons(polygons: Sequence[Any], size: tuple[int, int]) -> Rle:
    """The union of polygons, each a list x1, y1, x2, y2, ... in pixels.

    Polygons of fewer than three corners have no area and are passed over.

    Raises:
        SegmentError: no polygon is left; one is no list of finite numbers, or reaches farther out
            of the image than its side; or all outlines together are too long.
    """
    if polygons and not isinstance(polygons[0], list):
        polygons = [polygons]  # one polygon without a list around it
    usable, outline = [], 0.0
    for polygon in polygons:
        corners = _corners(polygon, size)
        if len(corners) >= _MIN_NUMBERS // 2:
            steps = np.abs(np.diff(corners, axis=0, append=corners[:1])).max(1)
            outline += float(steps.sum())
            usable.append(corners.ravel().tolist())
    if not usable:
        raise SegmentError("mask", "polygons of fewer than three corners")
    if outline > _MAX_OUTLINE:
        raise SegmentError("mask", f"outlines of {outline:,.0f} pixels")
    found = coco_mask.frPyObjects(usable, *size)
    return _rle(coco_mask.merge(found) if len(found) > 1 else found[0])


def tight_box(mask: Rle) -> tuple[float, float, float, float]:
    """The smallest box x1, y1, x2, y2 around the pixels of a mask, in whole pixels."""
    x, y, width, height = coco_mask.toBbox({"size": list(mask.size), "counts": mask.counts})
    return float(x), float(y), float(x + width), float(y + height)


def _corners(polygon: Any, size: tuple[int, int]) -> NDArray[np.float64]:
    """(num, 2) of x and y."""
    if not isinstance(polygon, list) or not set(map(type, polygon)) <= {int, float}:
        raise SegmentError("mask", "a polygon is no list of numbers")
    if len(polygon) % 2:
        raise SegmentError("mask", f"a polygon has {len(polygon)} numbers, and corners have two")
    corners = np.array(polygon, np.float64).reshape(-1, 2)
    sides = np.array(size[::-1], np.float64)
    # False for NaN, too.
    if not ((corners >= -sides) & (corners <= 2 * sides)).all():
        raise SegmentError("mask", "a polygon is not finite, or far outside of the image")
    return corners


def _from_runs(segment: dict[Any, Any], size: tuple[int, int]) -> Rle:
    stated, counts = segment.get("size"), segment.get("counts")
    if not isinstance(stated, list) or [type(side) for side in stated] != [int, int]:
        raise SegmentError("mask", "run lengths without a size [height, width]")
    if tuple(stated) != size:
        raise SegmentError(
            "mask_size", f"{stated[1]} x {stated[0]} pixels, the image {size[1]} x {size[0]}"
        )
    if isinstance(counts, str):
        runs = _decompress(counts)
    elif isinstance(counts, list) and all(type(count) is int for count in counts):
        if not all(0 <= count <= math.prod(size) for count in counts):
            raise SegmentError("mask", "run lengths below 0, or longer than the image")
        runs = np.array(counts, np.int64)
    else:
        raise SegmentError("mask", "run lengths without counts")
    total, pixels = int(runs.sum()), math.prod(size)
    if (runs < 0).any() or total != pixels:
        raise SegmentError("mask", f"run lengths of {total:,} pixels, the image has {pixels:,}")
    if (runs[1:] == 0).any():  # allowed, but boxes around such runs would be too large
        flat = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8)
        return _encode(flat.reshape(size[::-1]).T)
    return _rle(coco_mask.frPyObjects({"size": list(size), "counts": runs.tolist()}, *size))


def _decompress(text: str) -> NDArray[np.int64]:
    """The run lengths in COCO's compressed form: 5 bits a character, differences from the third on.

    Raises:
        SegmentError: the text has other characters, ends within a number or holds too large ones.
    """
    data = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
    data -= _BIAS
    if len(data) == 0 or data.min() < 0 or data.max() >= 2 * _MORE or data[-1] & _MORE:
        raise SegmentError("mask", "compressed run lengths that do not decode")
    ends = np.flatnonzero((data & _MORE) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_GROUPS:
        raise SegmentError("mask", "compressed run lengths that are too large")
    place = np.arange(len(data)) - np.repeat(starts, lengths)
    values = np.add.reduceat((data & (_MORE - 1)) << (_BITS * place), starts)
    values -= np.where(data[ends] & _SIGN, 1 << (_BITS * lengths), 0)
    # From the third on, each is the difference to the one before the last.
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    return runs


def _encode(pixels: NDArray[np.uint8]) -> Rle:
    (mask,) = encode_masks(torch.from_numpy(np.ascontiguousarray(pixels))[None])
    return mask


def _rle(coco: dict[str, Any]) -> Rle:
    height, width = coco["size"]
    return Rle((int(height), int(width)), bytes(coco["counts"]))
