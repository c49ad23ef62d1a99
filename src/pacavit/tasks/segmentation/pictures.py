"""Pictures of the classes of pixels: in the colors of their classes, over an image, with names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pacavit.data import IGNORE_INDEX
from pacavit.utils.pictures import from_pillow, pillow_image

__all__ = ["colorize", "errors_picture", "overlay", "with_legend"]

Colors = Sequence[tuple[int, int, int]]

_OPACITY = 0.6
_IGNORED = (0, 0, 0)
_WRONG, _OUTLINE = (230, 40, 40), 255
_FEWEST = 8  # pixels of the smallest letters


def colorize(labels: Tensor, colors: Colors) -> Tensor:
    """(H, W) uint8 classes -> (3, H, W) uint8 in the colors of the classes; ignored pixels black.

    Args:
        labels: classes, or ``IGNORE_INDEX``.
        colors: RGB of each class.
    """
    table = torch.zeros(IGNORE_INDEX + 1, 3, dtype=torch.uint8)
    table[: len(colors)] = torch.tensor(colors, dtype=torch.uint8)
    table[IGNORE_INDEX] = torch.tensor(_IGNORED, dtype=torch.uint8)
    return table[labels.cpu().long()].permute(2, 0, 1)


def overlay(image: Tensor, labels: Tensor, colors: Colors, opacity: float = _OPACITY) -> Tensor:
    """(3, H, W) uint8 -> the same with its classes (H, W) in color, and white lines between them.

    Args:
        image: the picture.
        labels: classes of its pixels, or ``IGNORE_INDEX``, where the picture stays as it is.
        colors: RGB of each class.
        opacity: of the colors, 0..1.
    """
    labels = labels.cpu()
    mixed = (1 - opacity) * image.cpu().float() + opacity * colorize(labels, colors).float()
    mixed = torch.where(labels == IGNORE_INDEX, image.cpu().float(), mixed)
    mixed[:, _between(labels)] = _OUTLINE
    return mixed.round().to(torch.uint8)


def errors_picture(image: Tensor, labels: Tensor, truth: Tensor) -> Tensor:
    """(3, H, W) uint8 -> in gray, with the pixels of a wrong class in red; ignored ones black."""
    gray = image.cpu().float().mean(0).expand(3, -1, -1) * 0.5 + 96
    picture = gray.clone()
    wrong = (labels != truth) & (truth != IGNORE_INDEX)
    picture[:, wrong.cpu()] = torch.tensor(_WRONG, dtype=torch.float32)[:, None]
    picture[:, (truth == IGNORE_INDEX).cpu()] = 0.0
    return picture.round().to(torch.uint8)


def with_legend(
    picture: Tensor,
    entries: Sequence[tuple[str, tuple[int, int, int]]],
    letters: int | None = None,
) -> Tensor:
    """(3, H, W) uint8 -> a picture with names and colors of classes in rows below it.

    Args:
        picture: at any size.
        entries: name and RGB color of each class, in order.
        letters: their height in pixels; None is in proportion to the picture.
    """
    height, width = picture.shape[1:]
    size = letters or max(_FEWEST, round(max(height, width) / 40))
    font = ImageFont.load_default(size)
    pad, swatch = size // 2, size
    places: list[tuple[int, int]] = []
    left, top = pad, height + pad
    for name, _ in entries:
        length = swatch + pad + round(font.getlength(name)) + 2 * pad
        if left + length > width and left > pad:
            left, top = pad, top + size + pad
        places.append((left, top))
        left += length
    canvas = Image.new("RGB", (width, top + size + 2 * pad), (255, 255, 255))
    canvas.paste(pillow_image(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for (name, color), (x, y) in zip(entries, places, strict=True):
        draw.rectangle((x, y, x + swatch, y + size), fill=tuple(color), outline=(90, 90, 90))
        draw.text((x + swatch + pad, y + size // 2), name, fill=(0, 0, 0), font=font, anchor="lm")
    return from_pillow(canvas)


def _between(labels: Tensor) -> Tensor:
    """(H, W) bool: the pixels whose right or lower neighbor has another class."""
    edges = np.zeros(labels.shape, dtype=bool)
    values = labels.numpy()
    edges[:, :-1] |= values[:, :-1] != values[:, 1:]
    edges[:-1] |= values[:-1] != values[1:]
    return torch.from_numpy(edges)
