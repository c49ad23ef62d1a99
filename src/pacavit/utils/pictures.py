"""Pictures as tensors, Pillow images, bytes of files, and data URLs for pages."""

from __future__ import annotations

import zlib
from base64 import b64encode
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "base64_text",
    "data_uri",
    "figure_bytes",
    "from_pillow",
    "gray_png_bytes",
    "jpeg_bytes",
    "pillow_image",
    "png_bytes",
    "png_uri",
]

# Values of the largest picture that Pillow's slow search for the smallest file is used for. For
# photographs, run-length encoding takes an eighth of the time, and the file is not larger.
_MAX_OPTIMIZED = 3 * 640 * 640


def pillow_image(picture: Tensor) -> Image.Image:
    """(3, H, W) uint8, (H, W) uint8 or (H, W) bool -> a Pillow image, "RGB", "L" or "1"."""
    pixels = picture.detach().cpu()
    if pixels.ndim == 3:
        pixels = pixels.permute(1, 2, 0).contiguous()
    return Image.fromarray(pixels.numpy())


def from_pillow(image: Image.Image) -> Tensor:
    """A Pillow image, "RGB" or "1" -> (3, H, W) uint8 or (H, W) bool."""
    pixels = torch.from_numpy(np.array(image))
    return pixels if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def png_bytes(picture: Tensor) -> bytes:
    """(3, H, W) uint8 or (H, W) bool -> the bytes of a PNG file."""
    small = picture.numel() <= _MAX_OPTIMIZED
    options: dict[str, Any] = {"optimize": True} if small else {"compress_type": zlib.Z_RLE}
    return _saved(pillow_image(picture), "PNG", **options)


def gray_png_bytes(values: Tensor) -> bytes:
    """(H, W) uint8 or uint16 -> the bytes of a PNG file with these gray values."""
    return _saved(pillow_image(values), "PNG")


def jpeg_bytes(picture: Tensor, *, quality: int = 88) -> bytes:
    """(3, H, W) uint8 -> the bytes of a JPEG file."""
    return _saved(pillow_image(picture), "JPEG", quality=quality)


def figure_bytes(figure: Figure, kind: str = "png", **options: Any) -> bytes:
    """A Matplotlib figure as the bytes of a file.

    Args:
        figure: the figure.
        kind: "png" or "svg".
        **options: further arguments of ``Figure.savefig``, such as ``dpi``.
    """
    file = BytesIO()
    figure.savefig(file, format=kind, **options)
    return file.getvalue()


def base64_text(data: bytes) -> str:
    """Bytes as base64 text."""
    return b64encode(data).decode()


def data_uri(data: bytes, kind: str) -> str:
    """A data URL with the content of a file.

    Args:
        data: the bytes of the file.
        kind: its media type, such as ``image/png``.
    """
    return f"data:{kind};base64,{base64_text(data)}"


def png_uri(picture: Tensor) -> str:
    """(3, H, W) uint8 or (H, W) bool -> the data URL of a PNG file."""
    return data_uri(png_bytes(picture), "image/png")


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
