"""Images in files with objects, as a set; all files are checked before they are used."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from pacavit.data.base import Sample
from pacavit.data.formats.image import MAX_PIXELS, read_image, read_size
from pacavit.data.formats.masks import read_all
from pacavit.data.formats.object_table import ObjectTable
from pacavit.data.formats.walk import sub_folders
from pacavit.data.objects import ObjectImages, Objects, ObjectStatistics
from pacavit.errors import DataError
from pacavit.utils.text import first_few, shown

__all__ = ["ObjectFiles"]

_FAULTS = {
    "missing": ("image file is missing", "image files are missing"),
    "size": (
        "image has another size than its annotations state",
        "images have another size than their annotations state",
    ),
    "turned": (
        "image has the size that its annotations state only without its EXIF orientation, or with "
        "width and height exchanged",
        "images have the size that their annotations state only without their EXIF orientation, or "
        "with width and height exchanged",
    ),
}


class ObjectFiles(ObjectImages):
    """One split of images in files, which are decoded when they are needed, with their objects.

    Args:
        root: folder that the paths are relative to.
        table: files and objects.
        num_classes: number of classes.
        max_pixels: largest image that is decoded.
        device: of batches.
    """

    in_files = True

    def __init__(
        self,
        root: Path,
        table: ObjectTable,
        num_classes: int,
        *,
        max_pixels: int = MAX_PIXELS,
        device: torch.device | str = "cpu",
    ) -> None:
        self.root: Path = root
        self.table, self.num_classes, self.max_pixels = table, num_classes, max_pixels
        self.broken: dict[str, str] = {}
        self._device = torch.device(device)
        self._statistics: ObjectStatistics | None = None

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Sample:
        """The image at a position, (3, H, W) uint8, upright, with its objects; on the CPU.

        Raises:
            ReadError: the system failed to read the file.
            DataError: the file is broken or too large, or has another size than stated; one line.
        """
        image, target = self.image(index), self.target(index)
        if tuple(image.shape[1:]) != target.size:
            raise DataError(f"{shown(self.path(index))}: {_FAULTS['size'][0]}")
        return Sample(image, target, index)

    def image(self, index: int) -> torch.Tensor:
        """The image at a position, (3, H, W) uint8, without its objects."""
        return read_image(self.path(index), max_pixels=self.max_pixels)

    def target(self, index: int) -> Objects:
        """The objects in the image at a position."""
        return self.table.objects(index)

    def file(self, index: int) -> Path:
        """The path of the image at a position, relative to ``root``."""
        return Path(os.fsdecode(self.table.files[index]))

    def path(self, index: int) -> Path:
        """The file of the image at a position."""
        return self.root / self.file(index)

    @property
    def device(self) -> torch.device:
        """The device of batches."""
        return self._device

    def to(self, device: torch.device) -> ObjectFiles:
        """The same files, with batches on another device; ``broken`` is shared."""
        moved = ObjectFiles(
            self.root, self.table, self.num_classes, max_pixels=self.max_pixels, device=device
        )
        moved.broken = self.broken
        moved._statistics = self._statistics
        return moved

    def add_broken(self, broken: Mapping[str, str]) -> None:
        """Record images that could not be read, by path."""
        self.broken.update(broken)

    def sample_sizes(self, at_most: int) -> list[tuple[int, int]]:
        """(height, width) of evenly spread images, upright, as the annotations state them."""
        step = max(1, -(-len(self) // at_most))
        return [(height, width) for height, width in self.table.sizes[::step].tolist()]

    @property
    def statistics(self) -> ObjectStatistics:
        """Counts over all images; no image is read."""
        if self._statistics is None:
            targets = (self.target(index) for index in range(len(self)))
            self._statistics = ObjectStatistics.of(targets, self.num_classes)
        return self._statistics

    def checked(self, what: str, *, skip: bool) -> tuple[ObjectFiles, list[str]]:
        """The images whose files are there and have the stated sizes; reads all headers.

        Broken files stay in the set, and are reported when they are read.

        Args:
            what: which images, for the display of progress.
            skip: leave out images whose files are missing or have other sizes; else they are
                errors.

        Returns:
            The images, and a line on those that are left out, if there are any.

        Raises:
            DataError: files are missing or have other sizes, in numbers and with examples; or no
                image is left.
        """
        faults: dict[str, list[str]] = defaultdict(list)
        usable = []
        found = read_all(self._check, range(len(self)), f"checking {what} files")
        for index, fault in enumerate(found):
            if fault is None:
                usable.append(index)
            else:
                detail = f": {fault.detail}" if fault.detail else ""
                faults[fault.kind].append(f"{shown(self.file(index))}{detail}")
        if not faults:
            return self, []
        text = "; ".join(
            f"{len(faults[kind]):,} {one if len(faults[kind]) == 1 else many} "
            f"({first_few(faults[kind])})"
            for kind, (one, many) in _FAULTS.items()
            if kind in faults
        )
        if not skip or not usable:
            remedy = "" if skip else "; data.options.mismatched=skip leaves them out"
            raise DataError(f"{shown(self.root)}: {text}; correct files or annotations{remedy}")
        kept = ObjectFiles(
            self.root,
            self.table.at(torch.tensor(usable)),
            self.num_classes,
            max_pixels=self.max_pixels,
            device=self.device,
        )
        return kept, [f"left out, of {len(self):,} {what}: {text}"]

    def _check(self, index: int) -> _Fault | None:
        path = self.path(index)
        height, width = self.table.sizes[index].tolist()
        size = read_size(path, upright=True)
        if size is None:
            return None if path.exists() else _Fault("missing", _other_case(path))
        if size == (height, width):
            return None
        kind = "turned" if size == (width, height) else "size"
        return _Fault(kind, f"{size[1]} x {size[0]} pixels, stated {width} x {height}")


class _Fault(NamedTuple):
    """What is wrong with an image file: a key of ``_FAULTS``, and a detail."""

    kind: str
    detail: str


def _other_case(path: Path) -> str:
    """A note on a file whose name differs in upper and lower case only."""
    try:
        names = [name for names in sub_folders(path.parent) for name in names]
    except DataError:
        return ""
    near = next((name for name in names if name.lower() == path.name.lower()), None)
    return "" if near is None else f"its name on the disk is {shown(near)}"
