"""Files of masks: class indices as gray values, palette indices or colors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile
from torch import Tensor

from pacavit.data.base import IGNORE_INDEX, Color
from pacavit.data.formats.class_list import color_code, color_name
from pacavit.data.formats.image import (
    MAX_PIXELS,
    check_pixels,
    decoding,
    read_file,
)
from pacavit.data.workers import available_cores, map_in_workers
from pacavit.errors import DataError, ReadError
from pacavit.utils.progress import progress

__all__ = [
    "FAULTS",
    "LOSSY",
    "FaultKind",
    "FoundValues",
    "MaskCoding",
    "MaskError",
    "find_values",
    "palette_colors",
    "read_all",
    "read_mask",
]

Item = TypeVar("Item")
Result = TypeVar("Result")

_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP")
"""Formats whose compression changes values."""
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
            MaskError: some codes are of no class.
        """
        places = np.searchsorted(self.codes, codes)
        places[places == len(self.codes)] = 0
        unknown = self.codes[places] != codes
        if unknown.any():
            found = [_code_name(code) for code in np.unique(codes[unknown]).tolist()]
            more = ", ..." if len(found) > _SHOWN_VALUES else ""
            raise MaskError("unknown", f"{', '.join(found[:_SHOWN_VALUES])}{more}")
        return self.labels[places]


class MaskError(DataError):
    """A mask that does not fit, which is reported together with others of its kind.

    Args:
        kind: a key of ``FAULTS``.
        detail: about this mask.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{FAULTS[kind].one}: {detail}")
        self.kind, self.detail = kind, detail


class FaultKind(NamedTuple):
    """How a kind of error is reported: of one mask, of several, and what to do."""

    one: str
    many: str
    remedy: str


FAULTS = {
    "size": FaultKind(
        "mask has another size than its image",
        "masks have another size than their images",
        "save each mask with the width and height of its image",
    ),
    "turned": FaultKind(
        "mask fits its image only without the image's EXIF orientation",
        "masks fit their images only without the images' EXIF orientation",
        "turn these masks like their images are shown",
    ),
    "unknown": FaultKind(
        "mask has values or colors that are of no class",
        "masks have values or colors that are of no class",
        "add them to the list of classes, or to data.options.ignore",
    ),
    "colored": FaultKind(
        "mask is in color, and the classes have no colors",
        "masks are in color, and the classes have no colors",
        "list them, as in NAME R G B",
    ),
    "lossy": FaultKind(
        "mask is stored with lossy compression, which changes its values",
        "masks are stored with lossy compression, which changes their values",
        "export them again as PNG",
    ),
    "mode": FaultKind(
        "mask has pixels that are no whole numbers or RGB colors",
        "masks have pixels that are no whole numbers or RGB colors",
        "save them as PNG with one value a pixel",
    ),
    "small": FaultKind(
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
    for found in read_all(reader, paths, "looking for the values of classes: masks"):
        if found is None:
            continue
        if isinstance(found, str):
            colored += found == "colored"
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


def read_all(
    function: Callable[[Item], Result], items: Sequence[Item], what: str
) -> Iterator[Result]:
    """The results of a function for all items, with a display of progress."""
    num = len(items)
    num_workers = 0 if num <= _FEW else available_cores()
    return progress(map_in_workers(function, items, num_workers=num_workers), what, num)


def _values_of(path: Path, max_pixels: int) -> NDArray[np.int32] | str | None:
    """The values in a mask, the kind of its fault, or None if it is broken."""
    read = partial(_read_codes, by_value=True, colors=False, max_pixels=max_pixels)
    try:
        return np.unique(read_file(path, read))
    except ReadError:
        raise
    except MaskError as error:
        return error.kind
    except DataError:
        return None


def _read_codes(
    file: BinaryIO, name: str, *, by_value: bool, colors: bool, max_pixels: int
) -> NDArray[np.int32]:
    """(H, W) values, or colors as ``_COLOR + 0xRRGGBB``, of an open file."""
    with decoding(name), Image.open(file, formats=_FORMATS) as image:
        if image.format in LOSSY:
            raise MaskError("lossy", f"a {image.format} file")
        check_pixels(image, name, max_pixels)
        spread = _SPREAD.get(_raw_mode(image), 1)
        image.load()
        if image.mode in _COLOR_MODES:
            pixels = np.asarray(image)[..., :3]
            if colors or not by_value:
                return _color_codes(pixels)
            if (pixels != pixels[..., :1]).any():
                raise MaskError("colored", "not gray")
            return pixels[..., 0].astype(np.int32)
        if image.mode not in _VALUE_MODES:
            raise MaskError("mode", f"of Pillow's mode {image.mode}")
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
