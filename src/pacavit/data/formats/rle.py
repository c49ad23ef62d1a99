"""Masks of objects as runs of pixels, which take far less memory than pixels (COCO's encoding)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Rle", "encode_masks", "encode_part"]


class Rle(NamedTuple):
    """A mask as COCO's compressed run lengths, column by column.

    Attributes:
        size: (height, width) in pixels.
        counts: the compressed lengths of runs of 0 and 1 by turns, the first of 0.
    """

    size: tuple[int, int]
    counts: bytes

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(coco_mask.area(self.as_coco()))

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 around the pixels; all 0 if there are none."""
        left, top, width, height = map(float, coco_mask.toBbox(self.as_coco()))
        return (left, top, left + width, top + height)

    def decode(self) -> Tensor:
        """(height, width) bool, column by column in memory."""
        lengths = _lengths(self.counts)
        values = np.arange(len(lengths)) % 2 == 1
        pixels = np.repeat(values, lengths).reshape(self.size[1], self.size[0])
        return torch.from_numpy(pixels).T

    def to_json(self) -> dict[str, object]:
        """As it stands in COCO's files."""
        return {"size": list(self.size), "counts": self.counts.decode("ascii")}

    def as_coco(self) -> dict[str, object]:
        """As COCO's functions take it."""
        return {"size": list(self.size), "counts": self.counts}


def _lengths(counts: bytes) -> NDArray[np.int64]:
    """Compressed run lengths -> (runs,).

    Each is written as characters of 5 bits, the lowest first, and a bit for "there are more"; from
    the fourth one on as its difference to the last but one. The library's own decoder takes ten
    times as long for a large mask.
    """
    codes = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    sizes = last - first + 1
    places = 5 * (np.arange(len(codes)) - np.repeat(first, sizes))
    values = np.add.reduceat((codes & 31) << places, first)
    values -= np.where(codes[last] & 16, 1 << (5 * sizes), 0)  # the sign
    for start in (1, 2):
        values[start::2] = values[start::2].cumsum()
    return values


def encode_masks(masks: Tensor) -> tuple[Rle, ...]:
    """(num, height, width) bool or uint8 of 0 and 1 -> a mask each."""
    size = (masks.shape[1], masks.shape[2])
    if len(masks) == 0:
        return ()
    columns = np.asfortranarray(masks.to(torch.uint8).cpu().permute(1, 2, 0).numpy())
    return tuple(Rle(size, bytes(each["counts"])) for each in coco_mask.encode(columns))


def encode_part(part: Tensor, corner: tuple[int, int], size: tuple[int, int]) -> Rle:
    """A mask of which only a rectangle has pixels; the rest of it is never held in memory.

    Args:
        part: (rows, columns) bool.
        corner: top and left of the rectangle in the mask.
        size: (height, width) of the mask.
    """
    (height, width), (top, left) = size, corner
    columns = np.zeros((part.shape[1], height), dtype=bool)
    columns[:, top : top + part.shape[0]] = part.cpu().numpy().T
    # Runs change where a pixel differs from the one before it, column by column.
    changes = np.diff(columns.ravel(), prepend=False, append=False).nonzero()[0] + left * height
    ends = [0, *changes[changes < height * width], height * width]
    runs = {"size": list(size), "counts": np.diff(ends).tolist()}
    return Rle(size, bytes(coco_mask.frPyObjects(runs, height, width)["counts"]))
