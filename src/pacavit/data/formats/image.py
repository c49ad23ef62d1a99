"""Decode image files of any format and mode into RGB pixels."""

from __future__ import annotations

import errno
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,  # noqa: F401 (the plugins register the suffixes of their formats)
    ExifTags,
    GifImagePlugin,  # noqa: F401
    Image,
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    TiffTags,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)
from torch import Tensor

from pacavit.data.formats.metadata import without_metadata
from pacavit.data.placement import Region
from pacavit.errors import DataError, ReadError
from pacavit.utils.files import open_regular
from pacavit.utils.text import one_line, shown

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "center_region",
    "check_pixels",
    "crop_center",
    "decode_image",
    "decoding",
    "fit_image",
    "from_pillow",
    "read_file",
    "read_image",
    "read_size",
    "resize_image",
]

Decoded = TypeVar("Decoded")

MAX_PIXELS = 64_000_000
"""Images with more pixels are refused unless the caller asks for more."""


_RETRY_SECONDS = 0.5  # network file systems recover from most failures

# Only formats that Pillow decodes itself. EPS, for example, it passes to an external interpreter,
# which would run the file as a program.
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

# Others with several frames are documents, or photographs with a preview.
_ANIMATED = ("GIF", "PNG", "WEBP")

# MPO files are JPEG files with further pictures, of which the first is read.
IMAGE_SUFFIXES = frozenset(
    suffix for suffix, format_ in Image.EXTENSION.items() if format_ in _FORMATS or format_ == "MPO"
)
"""Suffixes of image files in lower case: all that Pillow registers for the formats above."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that makes an image upright, by its EXIF orientation."""
_SIDEWAYS = frozenset(_TURNS[orientation] for orientation in (5, 6, 7, 8))


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS, still: bool = False) -> Tensor:
    """Read an image file of any size and mode -> (3, H, W) uint8 RGB.

    - The EXIF orientation is applied. Metadata that cannot be parsed, or exceed Pillow's limits,
      are ignored: they never make an image unreadable.
    - Transparent pixels are composited on white. An alpha channel that is 0 everywhere is ignored:
      programs without support for transparency write 0 into the fourth byte of 32-bit pixels.
    - 16-bit and 32-bit integer gray values are taken to span 0..65535; floating-point ones 0..1, or
      0..255 if any exceeds 1.
    - Of an animation, the first frame is read.

    Args:
        path: file to read.
        max_pixels: largest H x W that is decoded.
        still: refuse animations.

    Raises:
        ReadError: the system failed to read the file, twice.
        DataError: the file is missing, a folder, a pipe or device, not an image, broken, too large
            or animated; one line with the path.
    """
    return read_file(
        path, lambda file, name: decode_image(file, name, max_pixels=max_pixels, still=still)
    )


def read_file(path: str | Path, decode: Callable[[BinaryIO, str], Decoded]) -> Decoded:
    """Open an image file and decode it; once more if the system fails to read it.

    Args:
        path: file to read.
        decode: is called with the open file, and its name in error messages.

    Raises:
        ReadError: the system failed to read the file, twice.
        DataError: the file is missing, a folder, a pipe or device; or ``decode`` raises it.
    """
    path = Path(path)
    try:
        return _open_and_decode(path, decode)
    except OSError:
        time.sleep(_RETRY_SECONDS)
    try:
        return _open_and_decode(path, decode)
    except OSError as error:
        raise ReadError(
            f"cannot read {shown(path)}: {error.strerror or error}; check the disk or the network, "
            "and try again"
        ) from error


def decode_image(
    file: IO[bytes] | bytes, name: str, *, max_pixels: int = MAX_PIXELS, still: bool = False
) -> Tensor:
    """Decode an open image file or its bytes, as ``read_image`` does -> (3, H, W) uint8 RGB.

    Args:
        file: binary file, or the bytes of one.
        name: of the image in error messages.
        max_pixels: largest H x W that is decoded.
        still: refuse animations.

    Raises:
        OSError: the system failed to read the file.
        DataError: it is not an image, broken, too large or animated.
    """
    stream = BytesIO(file) if isinstance(file, bytes) else file
    with decoding(name):
        try:
            pixels = _decode(stream, name, max_pixels, still)
        except Exception as error:
            if isinstance(error, DataError | Image.DecompressionBombError) or _is_failed_read(
                error
            ):
                raise
            pixels = _decode_without_metadata(stream, name, max_pixels, still, error)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises on a file's content into a DataError of one line.

    Args:
        name: of the image in error messages.

    Raises:
        OSError: the system failed to read the file.
        DataError: it is not an image, broken or too large.
    """
    with warnings.catch_warnings():
        # Pillow warns of odd metadata and large images; those that matter are errors below.
        warnings.simplefilter("ignore")
        try:
            yield
        except DataError:
            raise
        except UnidentifiedImageError:
            raise DataError(f"{name} is not an image in a format that can be read") from None
        except Image.DecompressionBombError:
            raise DataError(f"{name} has more pixels than Pillow accepts; scale it down") from None
        # Pillow's decoders raise almost anything on broken input: SyntaxError, IndexError,
        # struct.error, zlib.error, ...
        except Exception as error:
            if _is_failed_read(error):
                raise
            raise DataError(f"{name} is a broken image: {one_line(error)}") from error


def from_pillow(image: Image.Image, name: str) -> Tensor:
    """A Pillow image of any mode -> (3, H, W) uint8 RGB, as ``read_image`` reads its file.

    Args:
        image: open, perhaps not decoded yet.
        name: of the image in error messages.

    Raises:
        DataError: it cannot be decoded.
    """
    try:
        pixels = _upright_rgb(image)
    except Exception as error:  # decoding raises almost anything, see above
        raise DataError(f"{name} is a broken image: {one_line(error)}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def center_region(image_size: tuple[int, int], size: tuple[int, int]) -> Region:
    """The largest central region with the aspect ratio of ``size``, in whole pixels."""
    (height, width), (target_height, target_width) = image_size, size
    if height * target_width == width * target_height:
        return Region(0, 0, height, width)
    scale = min(height / target_height, width / target_width)
    kept_height = max(1, round(target_height * scale))
    kept_width = max(1, round(target_width * scale))
    return Region((height - kept_height) // 2, (width - kept_width) // 2, kept_height, kept_width)


def crop_center(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., H, W) -> the largest central region with the aspect ratio of ``size``."""
    height, width = images.shape[-2:]
    top, left, kept_height, kept_width = map(int, center_region((height, width), size))
    return images[..., top : top + kept_height, left : left + kept_width]


def fit_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, H, W) uint8 -> (3, height, width) uint8: center-cropped, then resized."""
    return resize_image(crop_center(image, size), size)


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, H, W) uint8 -> (3, height, width) uint8, bilinearly with antialiasing."""
    if tuple(image.shape[1:]) == size:
        return image
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]


def read_size(path: str | Path, *, upright: bool = False) -> tuple[int, int] | None:
    """(height, width) of an image file, from its header; None if it is broken.

    Args:
        path: file to read.
        upright: of the image that ``read_image`` returns; otherwise as it is stored.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings(), _open(path, shown(path)) as file:
            warnings.simplefilter("ignore")
            with Image.open(file, formats=_FORMATS) as image:
                if upright and _turn_upright(image) in _SIDEWAYS:
                    return image.width, image.height
                return image.height, image.width
    except Exception:  # for broken files Pillow raises errors of any class
        return None


def _open_and_decode(path: Path, decode: Callable[[BinaryIO, str], Decoded]) -> Decoded:
    name = shown(path)
    with _open(path, name) as file:
        return decode(file, name)


def _open(path: Path, name: str) -> BinaryIO:
    try:
        return open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"there is no image file {name}") from None
    except IsADirectoryError:
        raise DataError(f"{name} is a folder, not an image file") from None
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENXIO):  # ENXIO: of a socket
            raise
        raise DataError(f"{name} is a pipe or device, not an image file") from None


def _decode(stream: IO[bytes], name: str, max_pixels: int, still: bool) -> NDArray[np.uint8]:
    """(H, W, 3) pixels of an image file; raises whatever Pillow raises."""
    with Image.open(stream, formats=_FORMATS) as image:
        check_pixels(image, name, max_pixels)
        if still and image.format in _ANIMATED and getattr(image, "n_frames", 1) > 1:
            raise DataError(f"{name} is an animation; save the frame you mean by itself")
        if image.format == "TIFF":
            _drop_unreadable_directories(image)
        return _upright_rgb(image)


def _upright_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 3) pixels of an open image, turned according to its metadata."""
    image.load()
    turn = _turn_upright(image)
    return _to_rgb(image if turn is None else image.transpose(turn))


def _decode_without_metadata(
    stream: IO[bytes], name: str, max_pixels: int, still: bool, error: Exception
) -> NDArray[np.uint8]:
    """Decode a file without its metadata, after it could not be read with them.

    The first attempt keeps the orientation, the second keeps nothing.

    Raises:
        Exception: ``error``, if the file cannot be read without its metadata either.
    """
    for keep_orientation in (True, False):
        data = without_metadata(stream, keep_orientation=keep_orientation, max_pixels=max_pixels)
        if data is None:
            break
        try:
            return _decode(BytesIO(data), name, max_pixels, still)
        except (DataError, Image.DecompressionBombError):
            raise
        except Exception:  # noqa: S112 (the first error is the one to report)
            continue
    raise error


def _is_failed_read(error: Exception) -> bool:
    """Whether the system failed to read a file, rather than Pillow failed to decode it.

    The system's errors have a number, Pillow's own OSErrors have none. EINVAL counts as an error of
    the content: a broken file makes Pillow seek to invalid positions.
    """
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def check_pixels(image: Image.Image, name: str, max_pixels: int) -> None:
    """Raise DataError if an open image has more than ``max_pixels``."""
    width, height = image.size
    if width * height > max_pixels:
        raise DataError(
            f"{name} has {width} x {height} pixels, more than the limit of {max_pixels / 1e6:g} "
            "million; scale it down"
        )


def _drop_unreadable_directories(image: Image.Image) -> None:
    """Remove the Exif, GPS and other sub-directories of a TIFF file that cannot be parsed.

    Pillow parses all of them when it loads the pixels.
    """
    with suppress(Exception):
        exif = image.getexif()
        for tag in TiffTags.TAGS_V2_GROUPS:
            try:
                if tag in exif:
                    exif.get_ifd(tag)
            except Exception:
                del exif[tag]


def _turn_upright(image: Image.Image) -> Image.Transpose | None:
    """The transposition that makes a loaded image upright; None if none is known or needed."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:
        if _is_failed_read(error):
            raise
        return None


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """An image of any mode -> (H, W, 3) writable array."""
    if image.mode == "F" or image.mode.startswith("I"):
        return np.stack([_gray_to_bytes(np.asarray(image))] * 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (0, 0):
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def _gray_to_bytes(gray: NDArray[np.generic]) -> NDArray[np.uint8]:
    """(H, W) integers of up to 32 bits, or floats -> (H, W) in 0..255."""
    values = gray.astype(np.float64)
    if not np.issubdtype(gray.dtype, np.floating):
        values = values / 257  # 65535 -> 255
    elif not np.isfinite(values).all():
        raise ValueError("some gray values are not finite")
    elif values.max() <= 1:
        values = values * 255
    return values.clip(0, 255).round().astype(np.uint8)
