"""Files of masks: class indices as gray values, palette indices or colors."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile
from torch import Tensor

from pacavit.data.base import IGNORE_INDEX, Color, Sample
from pacavit.data.formats.class_list import color_code, color_name
from pacavit.data.formats.image import (
    MAX_PIXELS,
    check_pixels,
    decoding,
    read_file,
    read_image,
    read_size,
)
from pacavit.data.formats.pairs import Pairs
from pacavit.data.masks import MaskedImages, MaskStatistics, count_labels
from pacavit.data.workers import available_cores, map_in_workers
from pacavit.errors import DataError, ReadError
from pacavit.utils.progress import progress
from pacavit.utils.text import first_few, shown

__all__ = ["FoundValues", "MaskCoding", "MaskFiles", "find_values", "palette_colors", "read_mask"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP")
_VALUE_MODES = ("1", "L", "LA", "P", "PA", "I", "I;16", "I;16B", "I;16L")
_COLOR_MODES = ("RGB", "RGBA", "RGBX")
# Pillow spreads gray values of 2 and 4 bits over 0..255.
_SPREAD = {"L;2": 85, "L;4": 17}
_GRAY = 0x010101  # times a gray value: its color
_COLOR = 1 << 24  # is added to colors, so that they differ from values
_FEW = 256  # up to this many masks are read faster without worker processes
_SHOWN_VALUES = 3


@dataclass(frozen=True)
class MaskCoding:
    """Which values or colors in masks stand for which class.

    Attributes:
        by_value: gray values and palette indices are values; otherwise all masks are read by their
            colors.
        codes: values, and colors as numbers, in ascending order.
        labels: of each code: a class, or ``IGNORE_INDEX``.
        num_classes: number of classes.
    """

    by_value: bool
    codes: NDArray[np.int32]
    labels: NDArray[np.uint8]
    num_classes: int

    @classmethod
    def of(
        cls,
        values: Sequence[int] | None,
        colors: Sequence[Color] | None,
        *,
        ignored_values: Iterable[int] = (),
        ignored_colors: Iterable[Color] = (),
    ) -> MaskCoding:
        """The coding of classes in label order, by values, by colors, or by both.

        Args:
            values: of each class; None: masks are read by colors alone.
            colors: of each class; None: masks have no colors.
            ignored_values: of pixels without a class.
            ignored_colors: likewise.
        """
        table = dict.fromkeys(ignored_values, IGNORE_INDEX) if values is not None else {}
        for color in ignored_colors:
            table[_COLOR + color_code(color)] = IGNORE_INDEX
        for label, value in enumerate(values or ()):
            table[value] = label
        for label, color in enumerate(colors or ()):
            table[_COLOR + color_code(color)] = label
        codes = sorted(table)
        return cls(
            by_value=values is not None,
            codes=np.array(codes, np.int32),
            labels=np.array([table[code] for code in codes], np.uint8),
            num_classes=len(values or colors or ()),
        )

    @property
    def has_colors(self) -> bool:
        """Whether any color has a meaning."""
        return bool(self.codes[-1] >= _COLOR)

    def decode(self, codes: NDArray[np.int32]) -> NDArray[np.uint8]:
        """(H, W) codes -> (H, W) classes; ``IGNORE_INDEX`` for pixels without one.

        Raises:
            _MaskError: some codes are of no class.
        """
        places = np.searchsorted(self.codes, codes)
        places[places == len(self.codes)] = 0
        unknown = self.codes[places] != codes
        if unknown.any():
            found = [_code_name(code) for code in np.unique(codes[unknown]).tolist()]
            more = ", ..." if len(found) > _SHOWN_VALUES else ""
            raise _MaskError("unknown", f"{', '.join(found[:_SHOWN_VALUES])}{more}")
        return self.labels[places]


class _MaskError(DataError):
    """A mask that does not fit, which is reported together with others of its kind.

    Args:
        kind: a key of ``_KINDS``.
        detail: about this mask.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{_KINDS[kind].one}: {detail}")
        self.kind, self.detail = kind, detail


class _Kind(NamedTuple):
    """How a kind of error is reported: of one mask, of several, and what to do."""

    one: str
    many: str
    remedy: str


_KINDS = {
    "size": _Kind(
        "mask has another size than its image",
        "masks have another size than their images",
        "save each mask with the width and height of its image",
    ),
    "turned": _Kind(
        "mask fits its image only without the image's EXIF orientation",
        "masks fit their images only without the images' EXIF orientation",
        "turn these masks like their images are shown",
    ),
    "unknown": _Kind(
        "mask has values or colors that are of no class",
        "masks have values or colors that are of no class",
        "add them to the list of classes, or to data.options.ignore",
    ),
    "colored": _Kind(
        "mask is in color, and the classes have no colors",
        "masks are in color, and the classes have no colors",
        "list them, as in NAME R G B",
    ),
    "lossy": _Kind(
        "mask is stored with lossy compression, which changes its values",
        "masks are stored with lossy compression, which changes their values",
        "export them again as PNG",
    ),
    "mode": _Kind(
        "mask has pixels that are no whole numbers or RGB colors",
        "masks have pixels that are no whole numbers or RGB colors",
        "save them as PNG with one value a pixel",
    ),
    "small": _Kind(
        "image is too small",
        "images are too small",
        "leave them out, or lower data.options.min_side",
    ),
}


def read_mask(path: Path, coding: MaskCoding, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a file of a mask -> (H, W) uint8 classes, ``IGNORE_INDEX`` for none.

    Values of palettes are read as indices, never as colors, if the classes have values.

    Args:
        path: file to read.
        coding: values and colors of the classes.
        max_pixels: largest H x W that is decoded.

    Raises:
        ReadError: the system failed to read the file, twice.
        DataError: the file is missing, broken or too large, or does not fit the classes.
    """
    read = partial(_read_codes, by_value=coding.by_value, colors=coding.has_colors)
    return torch.from_numpy(coding.decode(read_file(path, partial(read, max_pixels=max_pixels))))


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
            raise DataError(f"{shown(self.mask_path(index))}: {_KINDS['size'].one}")
        return Sample(image, mask, index)

    def image(self, index: int) -> Tensor:
        """The image at a position, (3, H, W) uint8, without its mask."""
        return read_image(self.path(index), max_pixels=self.max_pixels)

    def target(self, index: int) -> Tensor:
        """The mask of the image at a position, (H, W) uint8; raises as ``read_mask``."""
        path = self.mask_path(index)
        try:
            return read_mask(path, self.coding, max_pixels=self.max_pixels)
        except _MaskError as error:
            raise DataError(f"{shown(path)}: {error}; {_KINDS[error.kind].remedy}") from error

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
        found = _in_workers(self._check, range(len(self)), f"checking {what}")
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
        except _MaskError as error:
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
    """What is wrong with a pair: a key of ``_KINDS`` or "broken", and a detail."""

    kind: str
    detail: str


class FoundValues(NamedTuple):
    """What occurs in masks without a list of classes.

    Attributes:
        values: in ascending order.
        colored: number of masks in color.
    """

    values: tuple[int, ...]
    colored: int


def find_values(paths: Sequence[Path], *, max_pixels: int = MAX_PIXELS) -> FoundValues:
    """All values in masks; broken ones, and those that hold no values, are passed over."""
    values: set[int] = set()
    colored = 0
    reader = partial(_values_of, max_pixels=max_pixels)
    for found in _in_workers(reader, paths, "looking for the values of classes: masks"):
        if found is None:
            continue
        if isinstance(found, _Fault):
            colored += found.kind == "colored"
        else:
            values.update(found.tolist())
    return FoundValues(tuple(sorted(values)), colored)


def palette_colors(path: Path, values: Sequence[int]) -> tuple[Color, ...] | None:
    """The colors that the palette of a mask has for values; None without distinct ones.

    A palette of grays counts as none.
    """
    try:
        palette = read_file(path, _read_palette)
    except DataError:
        return None
    if palette is None or max(values, default=0) >= len(palette):
        return None
    chosen = palette[list(values)]
    if len(np.unique(chosen, axis=0)) < len(values) or not np.ptp(chosen, axis=1).any():
        return None
    return tuple((int(red), int(green), int(blue)) for red, green, blue in chosen)


def _in_workers(
    function: Callable[[Item], Result], items: Sequence[Item], what: str
) -> Iterator[Result]:
    """The results of a function for all items, with a display of progress."""
    num = len(items)
    num_workers = 0 if num <= _FEW else available_cores()
    return progress(map_in_workers(function, items, num_workers=num_workers), what, num)


def _values_of(path: Path, max_pixels: int) -> NDArray[np.int32] | _Fault | None:
    read = partial(_read_codes, by_value=True, colors=False, max_pixels=max_pixels)
    try:
        return np.unique(read_file(path, read))
    except ReadError:
        raise
    except _MaskError as error:
        return _Fault(error.kind, error.detail)
    except DataError:
        return None


def _read_codes(
    file: BinaryIO, name: str, *, by_value: bool, colors: bool, max_pixels: int
) -> NDArray[np.int32]:
    """(H, W) values, or colors as ``_COLOR + 0xRRGGBB``, of an open file."""
    with decoding(name), Image.open(file, formats=_FORMATS) as image:
        if image.format in _LOSSY:
            raise _MaskError("lossy", f"a {image.format} file")
        check_pixels(image, name, max_pixels)
        spread = _SPREAD.get(_raw_mode(image), 1)
        image.load()
        if image.mode in _COLOR_MODES:
            pixels = np.asarray(image)[..., :3]
            if colors or not by_value:
                return _color_codes(pixels)
            if (pixels != pixels[..., :1]).any():
                raise _MaskError("colored", "not gray")
            return pixels[..., 0].astype(np.int32)
        if image.mode not in _VALUE_MODES:
            raise _MaskError("mode", f"of Pillow's mode {image.mode}")
        values = np.asarray(image)
        if values.ndim == 3:  # with transparency
            values = values[..., 0]
        if by_value:
            return values.astype(np.int32) // spread
        palette = _palette(image)
        if palette is None:
            scale = 255 if image.mode == "1" else 1
            return _COLOR + _GRAY * scale * values.astype(np.int32).clip(0, 255)
        return _color_codes(palette)[values]


def _raw_mode(image: Image.Image) -> str:
    """How the gray values of an open image are packed, in Pillow's terms; "" if unknown."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return ""
    arguments = image.tile[0].args
    mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return mode if isinstance(mode, str) else ""


def _read_palette(file: BinaryIO, name: str) -> NDArray[np.uint8] | None:
    with decoding(name), Image.open(file, formats=_FORMATS) as image:
        image.load()
        return _palette(image)


def _palette(image: Image.Image) -> NDArray[np.uint8] | None:
    """(256, 3) colors of a loaded image, black where it has fewer; None without a palette."""
    found = image.getpalette("RGB") if image.mode in ("P", "PA") else None
    if found is None:
        return None
    palette = np.zeros((256, 3), np.uint8)
    palette.reshape(-1)[: len(found)] = found
    return palette


def _color_codes(colors: NDArray[np.uint8]) -> NDArray[np.int32]:
    """(..., 3) RGB -> (...) codes."""
    red, green, blue = (colors[..., channel].astype(np.int32) for channel in range(3))
    return _COLOR + (red << 16 | green << 8 | blue)


def _code_name(code: int) -> str:
    return color_name(code - _COLOR) if code >= _COLOR else str(code)


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]} pixels"


def _describe(faults: Mapping[str, Sequence[str]]) -> str:
    """All kinds of faults with their numbers, examples and remedies, on one line."""
    return "; ".join(
        f"{len(faults[kind]):,} {text.one if len(faults[kind]) == 1 else text.many} "
        f"({first_few(faults[kind])}): {text.remedy}"
        for kind, text in _KINDS.items()
        if kind in faults
    )
