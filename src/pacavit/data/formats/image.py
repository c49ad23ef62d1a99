"""Any image file as RGB pixels."""

from __future__ import annotations

import errno
import time
import warnings
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from pacavit.data.placement import Region
from pacavit.errors import DataError, ReadError
from pacavit.utils.text import one_line

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "centre_region",
    "crop_centre",
    "decode_image",
    "fit_image",
    "from_pillow",
    "read_image",
]

MAX_PIXELS = 64_000_000
"""Images with more pixels are refused unless the caller asks for more."""


_RETRY_SECONDS = 0.5  # network file systems recover from most failures

# Only formats that Pillow decodes itself: it hands EPS, for example, to an outside interpreter,
# which would run the file as a program.
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

# Others with several frames are documents, or photographs with a preview.
_ANIMATED = ("GIF", "PNG", "WEBP")

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""What the name of a file in a folder ends in, in lower case, to be taken for an image."""


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS, still: bool = False) -> Tensor:
    """Read an image file of any size and mode -> (3, H, W) uint8 RGB.

    The EXIF orientation is applied and transparent pixels lie on white. 16-bit and 32-bit integer
    grey values are taken to span 0..65535; floating-point ones 0..1, or 0..255 if any exceeds 1.
    Of an animation, the first frame counts.

    Args:
        path: file to read.
        max_pixels: largest H x W that is decoded.
        still: refuse animations.

    Raises:
        ReadError: the system failed to read the file, twice.
        DataError: the file is missing, a folder, not an image, broken, too large or animated; one
            line with the path.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder, not an image file")
    try:
        return _open_and_decode(path, max_pixels, still)
    except OSError:
        time.sleep(_RETRY_SECONDS)
    try:
        return _open_and_decode(path, max_pixels, still)
    except OSError as error:
        raise ReadError(
            f"cannot read {path}: {error.strerror or error}; check the disk or the network, and "
            "try again"
        ) from error


def decode_image(
    file: IO[bytes] | bytes, name: str, *, max_pixels: int = MAX_PIXELS, still: bool = False
) -> Tensor:
    """Decode an open image file or its bytes, as ``read_image`` does -> (3, H, W) uint8 RGB.

    Args:
        file: binary file, or the bytes of one.
        name: what error messages shall call it.
        max_pixels: largest H x W that is decoded.
        still: refuse animations.

    Raises:
        OSError: the system failed to read the file.
        DataError: it is not an image, broken, too large or animated.
    """
    stream = BytesIO(file) if isinstance(file, bytes) else file
    with warnings.catch_warnings():
        # Pillow warns of odd metadata and large images; what matters becomes an error below.
        warnings.simplefilter("ignore")
        try:
            with Image.open(stream, formats=_FORMATS) as image:
                _check_size(image, name, max_pixels)
                if still and image.format in _ANIMATED and getattr(image, "n_frames", 1) > 1:
                    raise DataError(f"{name} is an animation; save the frame you mean by itself")
                pixels = _to_rgb(ImageOps.exif_transpose(image))
        except DataError:
            raise
        except UnidentifiedImageError:
            raise DataError(f"{name} is not an image in a format that can be read") from None
        except Image.DecompressionBombError:
            raise DataError(f"{name} has more pixels than Pillow accepts; scale it down") from None
        # Pillow's decoders raise almost anything on broken input: SyntaxError, IndexError,
        # struct.error, zlib.error, ...
        except Exception as error:
            # What fails beneath Pillow has a number; its own OSErrors speak of the content, and so
            # does EINVAL: broken files point to impossible places.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            raise DataError(f"{name} is a broken image: {one_line(error)}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def from_pillow(image: Image.Image, name: str) -> Tensor:
    """A Pillow image of any mode -> (3, H, W) uint8 RGB, as ``read_image`` reads its file.

    Args:
        image: open, maybe not decoded yet.
        name: what error messages shall call it.

    Raises:
        DataError: it cannot be decoded.
    """
    try:
        pixels = _to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # decoding raises almost anything, see above
        raise DataError(f"{name} is a broken image: {one_line(error)}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def centre_region(image_size: tuple[int, int], size: tuple[int, int]) -> Region:
    """The largest central part of an image that has the aspect of ``size``, in whole pixels."""
    (height, width), (target_height, target_width) = image_size, size
    if height * target_width == width * target_height:
        return Region(0, 0, height, width)
    scale = min(height / target_height, width / target_width)
    kept_height = max(1, round(target_height * scale))
    kept_width = max(1, round(target_width * scale))
    return Region((height - kept_height) // 2, (width - kept_width) // 2, kept_height, kept_width)


def crop_centre(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., H, W) -> the largest central part that has the aspect of ``size``."""
    height, width = images.shape[-2:]
    top, left, kept_height, kept_width = map(int, centre_region((height, width), size))
    return images[..., top : top + kept_height, left : left + kept_width]


def fit_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, H, W) uint8 -> (3, height, width) uint8: centre cropped, then resized."""
    image = crop_centre(image, size)
    if tuple(image.shape[1:]) == size:
        return image
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]


def _open_and_decode(path: Path, max_pixels: int, still: bool) -> Tensor:
    try:
        with path.open("rb") as file:
            return decode_image(file, str(path), max_pixels=max_pixels, still=still)
    except FileNotFoundError:
        raise DataError(f"there is no image file {path}") from None


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise DataError(
            f"{name} has {width} x {height} pixels, more than the limit of {max_pixels / 1e6:g} "
            "million; scale it down"
        )


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """An image of any mode -> (H, W, 3) writable array."""
    if image.mode == "F" or image.mode.startswith("I"):
        return np.stack([_grey_to_bytes(np.asarray(image))] * 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def _grey_to_bytes(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """(H, W) integers of up to 32 bits, or floats -> (H, W) in 0..255."""
    values = grey.astype(np.float64)
    if not np.issubdtype(grey.dtype, np.floating):
        values = values / 257  # 65535 -> 255
    elif not np.isfinite(values).all():
        raise ValueError("some grey values are not finite")
    elif values.max() <= 1:
        values = values * 255
    return values.clip(0, 255).round().astype(np.uint8)
