"""The objects of many images as a few arrays, which take little memory in every worker."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pacavit.data.formats.faults import ObjectFaults
from pacavit.data.formats.rle import Rle
from pacavit.data.formats.segments import SegmentError, tight_box
from pacavit.data.objects import Objects
from pacavit.utils.text import shown

__all__ = ["ObjectTable", "TableBuilder", "concatenate"]

_MIN_AREA = 1e-6  # pixels
_TOLERANCE = 1.0  # pixels by which boxes reach beyond images for mere rounding
Box = Sequence[float]


@dataclass(frozen=True, eq=False)
class ObjectTable:
    """Image files with their objects, sorted by image.

    Attributes:
        files: (num,) bytes, paths relative to the root of the data.
        image_ids: (num,) int64, the data set's own numbers of the images.
        sizes: (num, 2) int64, height and width of the upright images.
        starts: (num + 1,) int64, where the objects of each image begin.
        boxes: (objects, 4) float32, x1 y1 x2 y2 in pixels.
        classes: (objects,) int64.
        crowd: (objects,) bool.
        areas: (objects,) float32.
        runs: (bytes,) uint8, ``Rle.counts`` of all masks one after the other; None without masks.
        run_starts: (objects + 1,) int64, where the mask of each object begins; None likewise.
    """

    files: NDArray[np.bytes_]
    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    starts: NDArray[np.int64]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float32]
    runs: NDArray[np.uint8] | None = None
    run_starts: NDArray[np.int64] | None = None

    @property
    def labels(self) -> Tensor:
        """(num,) zeros: all images are alike where some are held out."""
        return torch.zeros(len(self.files), dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.files)

    def at(self, positions: Tensor) -> ObjectTable:
        """The images at (num,) int64 positions, with their objects."""
        images = positions.numpy()
        rows, starts = _rows(self.starts, images)
        runs = run_starts = None
        if self.runs is not None and self.run_starts is not None:
            places, run_starts = _rows(self.run_starts, rows)
            runs = self.runs[places]
        return ObjectTable(
            self.files[images],
            self.image_ids[images],
            self.sizes[images],
            starts,
            self.boxes[rows],
            self.classes[rows],
            self.crowd[rows],
            self.areas[rows],
            runs,
            run_starts,
        )

    def objects(self, index: int) -> Objects:
        """The objects of the image at a position."""
        rows = slice(int(self.starts[index]), int(self.starts[index + 1]))
        height, width = self.sizes[index].tolist()
        return Objects(
            torch.tensor(self.boxes[rows]),
            torch.tensor(self.classes[rows]),
            torch.tensor(self.crowd[rows]),
            torch.tensor(self.areas[rows]),
            (height, width),
            int(self.image_ids[index]),
            self._masks(rows, (height, width)),
        )

    def _masks(self, rows: slice, size: tuple[int, int]) -> tuple[Rle, ...] | None:
        if self.runs is None or self.run_starts is None:
            return None
        starts = self.run_starts[rows.start : rows.stop + 1].tolist()
        return tuple(
            Rle(size, self.runs[start:stop].tobytes()) for start, stop in itertools.pairwise(starts)
        )


def _rows(
    starts: NDArray[np.int64], groups: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the members of some groups, one group after the other, and where each begins."""
    lengths = starts[groups + 1] - starts[groups]
    ends = np.cumsum(lengths)
    new = np.concatenate([[0], ends]).astype(np.int64)
    offsets = np.repeat(starts[groups] - new[:-1], lengths)
    return offsets + np.arange(len(offsets)), new


def concatenate(tables: Sequence[ObjectTable]) -> ObjectTable:
    """The images of several tables; they are numbered anew if numbers occur twice."""
    ids = np.concatenate([table.image_ids for table in tables])
    if len(np.unique(ids)) < len(ids):
        ids = np.arange(1, len(ids) + 1)
    runs = [table.runs for table in tables if table.runs is not None]
    run_starts = [table.run_starts for table in tables if table.run_starts is not None]
    masks = len(runs) == len(tables)
    return ObjectTable(
        np.concatenate([table.files for table in tables]),
        ids,
        np.concatenate([table.sizes for table in tables]),
        _joined([table.starts for table in tables]),
        np.concatenate([table.boxes for table in tables]),
        np.concatenate([table.classes for table in tables]),
        np.concatenate([table.crowd for table in tables]),
        np.concatenate([table.areas for table in tables]),
        np.concatenate(runs) if masks else None,
        _joined(run_starts) if masks else None,
    )


def _joined(starts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    lengths = np.concatenate([np.diff(each) for each in starts])
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


class TableBuilder:
    """Collects images and objects; objects that cannot be used are counted and left out.

    Args:
        faults: receives what is wrong with objects.
        masks: objects need masks.
    """

    def __init__(self, faults: ObjectFaults, *, masks: bool) -> None:
        self.faults, self.masks = faults, masks
        self._files: list[bytes] = []
        self._names: list[str] = []
        self._ids: list[int] = []
        self._sizes: list[tuple[int, int]] = []
        self._rows: list[tuple[int, int, bool, float]] = []  # image, class, crowd, area
        self._boxes: list[Box] = []
        self._runs: list[bytes] = []
        self._seen: set[tuple[object, ...]] = set()

    def add_image(self, file: str, image_id: int, size: tuple[int, int]) -> int:
        """Add an image of a (height, width); returns its position."""
        self._files.append(os.fsencode(file))
        self._names.append(shown(file))
        self._ids.append(image_id)
        self._sizes.append(size)
        return len(self._files) - 1

    def add_object(
        self,
        image: int,
        label: int,
        box: Box | None,
        *,
        name: str,
        crowd: bool = False,
        area: float | None = None,
        mask: Rle | SegmentError | None = None,
    ) -> None:
        """Add an object, or count what is wrong with it.

        Args:
            image: position of its image.
            label: its class.
            box: x1, y1, x2, y2 in pixels, any numbers; None is the box around the mask.
            name: of the object in messages.
            crowd: it is a region with many objects.
            area: as the data set states it; if that is None, or larger than the image, the area is
                that of the mask or the box.
            mask: of the size of the image, or why it has none; None: the file has no masks.
        """
        example = f"{name} of {self._names[image]}"
        found = mask if isinstance(mask, Rle) and mask.area > 0 else None
        if self.masks and found is None:
            kind = mask.kind if isinstance(mask, SegmentError) else "no_mask"
            kind = "empty_mask" if isinstance(mask, Rle) else kind
            detail = mask.detail if isinstance(mask, SegmentError) else ""
            self.faults.add(kind, f"{example}: {detail}" if detail else example)
            return
        if box is None:
            if found is None:
                self.faults.add("malformed", f"{example}: no box")
                return
            box = tight_box(found)
        inside = self._inside(box, self._sizes[image], example)
        if inside is None:
            return
        counts = b"" if found is None else found.counts
        key = (image, label, crowd, inside, hash(counts))
        if key in self._seen:
            self.faults.add("repeated", example)
            return
        self._seen.add(key)
        x1, y1, x2, y2 = inside
        if area is None or not _MIN_AREA <= area <= math.prod(self._sizes[image]):
            area = (x2 - x1) * (y2 - y1) if found is None else found.area
        self._rows.append((image, label, crowd, area))
        self._boxes.append(inside)
        if self.masks:
            self._runs.append(counts)

    def _inside(
        self, box: Box, size: tuple[int, int], example: str
    ) -> tuple[float, float, float, float] | None:
        """The part of a box in its image; None, and a fault, if there is none."""
        x1, y1, x2, y2 = map(float, box)
        height, width = size
        kind, inside = None, None
        if not all(map(math.isfinite, (x1, y1, x2, y2))) or x2 <= x1 or y2 <= y1:
            kind = "degenerate"
        elif x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
            kind = "outside"
        else:
            cut = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
            if np.float32(cut[0]) < np.float32(cut[2]) and np.float32(cut[1]) < np.float32(cut[3]):
                inside = cut
                if min(x1, y1) < -_TOLERANCE or max(x2 - width, y2 - height) > _TOLERANCE:
                    kind = "beyond"
                elif max(x2, y2) <= 1 < max(size):
                    kind = "relative"
            else:
                kind = "degenerate"
        if kind is not None:
            corners = ", ".join(f"{side:.6g}" for side in (x1, y1, x2, y2))
            self.faults.add(kind, f"{example}: corners {corners} in {width} x {height} pixels")
        return inside

    def build(self) -> ObjectTable:
        """All images that were added, in their order, with their objects."""
        images = np.array([row[0] for row in self._rows], np.int64)
        order = np.argsort(images, kind="stable")
        counts = np.bincount(images, minlength=len(self._files))
        runs = [self._runs[row] for row in order.tolist()] if self.masks else []
        lengths = np.cumsum([len(each) for each in runs])
        return ObjectTable(
            np.array(self._files, np.bytes_),
            np.array(self._ids, np.int64),
            np.array(self._sizes, np.int64).reshape(-1, 2),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.array(self._boxes, np.float32).reshape(-1, 4)[order],
            np.array([row[1] for row in self._rows], np.int64)[order],
            np.array([row[2] for row in self._rows], np.bool_)[order],
            np.array([row[3] for row in self._rows], np.float32)[order],
            np.frombuffer(b"".join(runs), np.uint8) if self.masks else None,
            np.concatenate([[0], lengths]).astype(np.int64) if self.masks else None,
        )
