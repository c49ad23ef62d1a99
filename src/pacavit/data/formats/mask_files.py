"""Images and masks in files, as a set; all masks are checked before they are used."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pacavit.data.base import Sample
from pacavit.data.formats.image import MAX_PIXELS, read_image, read_size
from pacavit.data.formats.masks import FAULTS, MaskCoding, MaskError, read_all, read_mask
from pacavit.data.formats.pairs import Pairs
from pacavit.data.masks import MaskedImages, MaskStatistics, count_labels
from pacavit.errors import DataError, ReadError
from pacavit.utils.text import first_few, shown

__all__ = ["MaskFiles"]


class MaskFiles(MaskedImages):
    """One split of images and masks in files, which are decoded when they are needed.

    Args:
        root: folder that the paths are relative to.
        pairs: image files and mask files.
        coding: values and colors of the classes in masks.
        max_pixels: largest image that is decoded.
        min_side: least shorter side of an image that ``scan`` accepts.
        device: of targets and batches.
    """

    in_files = True

    def __init__(
        self,
        root: Path,
        pairs: Pairs,
        coding: MaskCoding,
        *,
        max_pixels: int = MAX_PIXELS,
        min_side: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.root: Path = root
        self.pairs, self.coding = pairs, coding
        self.max_pixels, self.min_side = max_pixels, min_side
        self.broken: dict[str, str] = {}
        self._device = torch.device(device)
        self._statistics: MaskStatistics | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """The image at a position, (3, H, W) uint8, upright, with its mask; on the CPU.

        Raises:
            ReadError: the system failed to read a file.
            DataError: a file is broken or too large, or the mask does not fit; one line.
        """
        image, mask = self.image(index), self.target(index)
        if mask.shape != image.shape[1:]:
            raise DataError(f"{shown(self.mask_path(index))}: {FAULTS['size'].one}")
        return Sample(image, mask, index)

    def image(self, index: int) -> Tensor:
        """The image at a position, (3, H, W) uint8, without its mask."""
        return read_image(self.path(index), max_pixels=self.max_pixels)

    def target(self, index: int) -> Tensor:
        """The mask of the image at a position, (H, W) uint8; raises as ``read_mask``."""
        path = self.mask_path(index)
        try:
            return read_mask(path, self.coding, max_pixels=self.max_pixels)
        except MaskError as error:
            raise DataError(f"{shown(path)}: {error}; {FAULTS[error.kind].remedy}") from error

    def file(self, index: int) -> Path:
        """The path of the image at a position, relative to ``root``."""
        return Path(os.fsdecode(self.pairs.files[index]))

    def path(self, index: int) -> Path:
        """The file of the image at a position."""
        return self.root / self.file(index)

    def mask_path(self, index: int) -> Path:
        """The file of the mask at a position."""
        return self.root / os.fsdecode(self.pairs.masks[index])

    @property
    def device(self) -> torch.device:
        """The device of targets and batches."""
        return self._device

    def to(self, device: torch.device) -> MaskFiles:
        """The same files, with batches on another device; ``broken`` is shared."""
        moved = MaskFiles(
            self.root,
            self.pairs,
            self.coding,
            max_pixels=self.max_pixels,
            min_side=self.min_side,
            device=device,
        )
        moved.broken = self.broken
        moved._statistics = self._statistics
        return moved

    def add_broken(self, broken: Mapping[str, str]) -> None:
        """Record images that could not be read, by path."""
        self.broken.update(broken)

    def sample_sizes(self, at_most: int) -> list[tuple[int, int]]:
        """(height, width) of evenly spread images, upright, without the broken ones."""
        step = max(1, -(-len(self) // at_most))
        sizes = (read_size(self.path(index), upright=True) for index in range(0, len(self), step))
        return [size for size in sizes if size is not None]

    @property
    def statistics(self) -> MaskStatistics:
        """Counts over all masks, which are read once; raises as ``scan``."""
        if self._statistics is None:
            self._statistics = self.scan("masks")
        return self._statistics

    def scan(self, what: str) -> MaskStatistics:
        """Decode all masks once: check them, count their pixels, and record those that are broken.

        Args:
            what: which masks, for the display of progress.

        Raises:
            ReadError: the system failed to read a file.
            DataError: masks or images do not fit, in numbers and with examples; no mask can be
                read; or no mask has a labeled pixel.
        """
        faults: dict[str, list[str]] = defaultdict(list)
        counts: list[tuple[str, Tensor]] = []
        found = read_all(self._check, range(len(self)), f"checking {what}")
        for index, result in enumerate(found):
            if not isinstance(result, _Fault):
                counts.append((self.location(index), torch.from_numpy(result)))
            elif result.kind == "broken":
                self.broken[self.location(index)] = result.detail
            else:
                faults[result.kind].append(f"{self._name(index, result.kind)}: {result.detail}")
        if faults:
            raise DataError(f"{shown(self.root)}: {_describe(faults)}")
        if not counts:
            errors = list(self.broken.values())
            raise DataError(f"no usable mask in {shown(self.root)}: {first_few(errors)}")
        self._statistics = MaskStatistics.of(counts, self.coding.num_classes)
        if not int(self._statistics.pixels.sum()):
            raise DataError(
                f"{shown(self.root)}: none of the {len(self):,} masks has a pixel of a class, for "
                f"example {shown(self.mask_path(0))}; check the list of classes, and "
                "data.options.ignore"
            )
        return self._statistics

    def _name(self, index: int, kind: str) -> str:
        file = self.pairs.files[index] if kind == "small" else self.pairs.masks[index]
        return shown(os.fsdecode(file))

    def _check(self, index: int) -> NDArray[np.int64] | _Fault:
        """The result of ``count_labels`` for a mask, or what is wrong with it."""
        try:
            mask = read_mask(self.mask_path(index), self.coding, max_pixels=self.max_pixels)
        except ReadError:
            raise
        except MaskError as error:
            return _Fault(error.kind, error.detail)
        except DataError as error:
            return _Fault("broken", str(error))
        stored = read_size(self.path(index), upright=True)
        size = (mask.shape[0], mask.shape[1])
        if stored is not None:  # broken images are reported when they are read
            if size != stored:
                plain = read_size(self.path(index))
                kind = "turned" if size == plain else "size"
                return _Fault(kind, f"{_pixels(size)}, the image {_pixels(stored)}")
            if min(stored) < self.min_side:
                return _Fault("small", f"{_pixels(stored)}, {self.min_side} a side are the least")
        # An array: many tensors of worker processes would take as many open files.
        counts: NDArray[np.int64] = count_labels(mask, self.coding.num_classes).numpy()
        return counts


class _Fault(NamedTuple):
    """What is wrong with a pair: a key of ``FAULTS`` or "broken", and a detail."""

    kind: str
    detail: str


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]} pixels"


def _describe(faults: Mapping[str, Sequence[str]]) -> str:
    """All kinds of faults with their numbers, examples and remedies, on one line."""
    return "; ".join(
        f"{len(faults[kind]):,} {text.one if len(faults[kind]) == 1 else text.many} "
        f"({first_few(faults[kind])}): {text.remedy}"
        for kind, text in FAULTS.items()
        if kind in faults
    )
