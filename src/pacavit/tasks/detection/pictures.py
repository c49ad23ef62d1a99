"""Pictures of objects: boxes, masks and names over an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import torch
from PIL import ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from pacavit.data import DataInfo, Objects, Rle
from pacavit.data.formats.image import resize_image
from pacavit.tasks.detection.predictions import Detections
from pacavit.utils.pictures import from_pillow, pillow_image

__all__ = ["Color", "Mark", "Style", "detection_marks", "draw_marks", "object_marks"]

Color: TypeAlias = tuple[int, int, int]
Style: TypeAlias = Literal["solid", "dashed", "dotted"]
_Rectangle: TypeAlias = tuple[float, float, float, float]

_SMALLEST = 480  # pixels of the longer side of a picture in which names can be read
_OPACITY = 0.4
_CASING = (0, 0, 0)
_PATTERNS: dict[Style, tuple[int, int]] = {"dashed": (5, 3), "dotted": (1, 2)}  # in line widths


@dataclass(frozen=True)
class Mark:
    """An object to draw.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the image.
        color: RGB, each 0..255.
        text: its name; empty for none.
        style: of the line.
        mask: its pixels, of the image's size; None for none.
    """

    box: _Rectangle
    color: Color
    text: str = ""
    style: Style = "solid"
    mask: Rle | None = None


def detection_marks(found: Detections, info: DataInfo) -> list[Mark]:
    """Detections as marks in the colors of their classes, with names and scores."""
    scores = found.scores.tolist()
    return [
        replace(mark, text=f"{mark.text} {score:.2f}")
        for mark, score in zip(_marks(found, info), scores, strict=True)
    ]


def object_marks(truth: Objects, info: DataInfo) -> list[Mark]:
    """Objects as marks in the colors of their classes, with names; crowd regions are dashed."""
    return [
        replace(mark, text=f"{mark.text} (crowd)", style="dashed") if crowd else mark
        for mark, crowd in zip(_marks(truth, info), truth.crowd.tolist(), strict=True)
    ]


def _marks(objects: Detections | Objects, info: DataInfo) -> Iterator[Mark]:
    """Marks in the colors and with the names of the classes."""
    assert info.objects is not None
    labels, masks = objects.labels.tolist(), objects.masks or (None,) * len(objects)
    for (x1, y1, x2, y2), label, mask in zip(objects.boxes.tolist(), labels, masks, strict=True):
        yield Mark((x1, y1, x2, y2), info.objects.colors[label], info.class_names[label], mask=mask)


def draw_marks(image: Tensor, marks: Sequence[Mark], side: int | None = None) -> Tensor:
    """(3, H, W) uint8 -> a picture with boxes, masks and names.

    Lines and letters are in proportion to the picture. Names that would cover those of earlier
    marks are left out.

    Args:
        image: the image.
        marks: the most important ones first.
        side: longer side of the picture in pixels; None: that of the image, and more for small
            images, so that names can be read.
    """
    height, width = image.shape[1:]
    longer = max(height, width)
    factor = (max(longer, _SMALLEST) if side is None else side) / longer
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    picture = resize_image(image.cpu(), size).float()
    line = max(1, round(max(size) / 300))
    # The first marks are drawn last, above the others.
    for mark in reversed(marks):
        if mark.mask is not None:
            _fill(picture, mark.mask, mark.color, line)
    canvas = pillow_image(picture.round().to(torch.uint8))
    draw = ImageDraw.Draw(canvas)
    scale = (size[1] / width, size[0] / height)
    boxes = [_scaled(mark.box, scale) for mark in marks]
    for mark, box in reversed(list(zip(marks, boxes, strict=True))):
        _outline(draw, box, mark, line)
    _names(draw, list(zip(marks, boxes, strict=True)), canvas.size, line)
    return from_pillow(canvas)


def _scaled(box: _Rectangle, scale: tuple[float, float]) -> _Rectangle:
    return (box[0] * scale[0], box[1] * scale[1], box[2] * scale[0], box[3] * scale[1])


def _fill(picture: Tensor, mask: Rle, color: Color, line: int) -> None:
    """Mix the color of a mask into a picture (3, h, w), and draw its outline."""
    pixels = mask.decode()
    for axis in (0, 1):
        number, wanted = pixels.shape[axis], picture.shape[axis + 1]
        if number != wanted:
            places = ((torch.arange(wanted) + 0.5) * number / wanted).long()
            pixels = pixels.index_select(axis, places)
    rows, columns = pixels.any(1).nonzero()[:, 0], pixels.any(0).nonzero()[:, 0]
    if not len(rows):
        return
    window = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    inside = pixels[window]
    outside = F.pad(~inside, (line,) * 4, value=True).float()[None]
    edge = inside & (F.max_pool2d(outside, 2 * line + 1, stride=1)[0] > 0)
    ink = torch.tensor(color, dtype=torch.float32)[:, None, None]
    opacity = torch.where(edge, 1.0, _OPACITY * inside)
    part = picture[:, window[0], window[1]]
    part.copy_(part + opacity * (ink - part))


def _outline(draw: ImageDraw.ImageDraw, box: _Rectangle, mark: Mark, line: int) -> None:
    """A rectangle in the style of a mark, on black, so that it is seen on any ground."""
    pieces = list(_dashes(box, mark.style, line))
    for ends in pieces:
        draw.line(ends, fill=_CASING, width=line + 2)
    for ends in pieces:
        draw.line(ends, fill=mark.color, width=line)


def _dashes(box: _Rectangle, style: Style, line: int) -> Iterator[_Rectangle]:
    """The pieces of a rectangle's outline."""
    x1, y1, x2, y2 = box
    sides = ((x1, y1, x2, y1), (x2, y1, x2, y2), (x2, y2, x1, y2), (x1, y2, x1, y1))
    if style == "solid":
        yield from sides
        return
    drawn, left = (max(1, line) * each + 1 for each in _PATTERNS[style])
    for ax, ay, bx, by in sides:
        length = abs(bx - ax) + abs(by - ay)
        for start in np.arange(0.0, length, drawn + left):
            first, last = start / length, min(1.0, (start + drawn) / length)
            yield (
                ax + first * (bx - ax),
                ay + first * (by - ay),
                ax + last * (bx - ax),
                ay + last * (by - ay),
            )


def _names(
    draw: ImageDraw.ImageDraw,
    marks: Sequence[tuple[Mark, _Rectangle]],
    size: tuple[int, int],
    line: int,
) -> None:
    """The names of marks above, in or below their boxes, where they cover no earlier name.

    Args:
        draw: the canvas.
        marks: with their boxes in pixels of the canvas.
        size: (width, height) of the canvas.
        line: width of lines in pixels.
    """
    width, height = size
    font = ImageFont.load_default(max(11, round(max(size) / 36)))
    pad = max(1, line)
    taken: list[_Rectangle] = []
    for mark, (x1, y1, x2, y2) in marks:
        if not mark.text:
            continue
        left, top, right, bottom = font.getbbox(mark.text)
        wide, tall = right - left + 2 * pad, bottom - top + 2 * pad
        corners = ((x1, y1 - tall), (x1, y1), (x1, y2), (x2 - wide, y1 - tall), (x2 - wide, y2))
        for x, y in corners:
            x, y = min(max(0.0, x), max(0.0, width - wide)), min(max(0.0, y), height - tall)
            place = (x, y, x + wide, y + tall)
            if not any(_touch(place, other) for other in taken):
                taken.append(place)
                draw.rectangle(place, fill=mark.color)
                ink = (0, 0, 0) if _is_light(mark.color) else (255, 255, 255)
                draw.text((x + pad - left, y + pad - top), mark.text, fill=ink, font=font)
                break


def _touch(one: _Rectangle, other: _Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _is_light(color: Color) -> bool:
    red, green, blue = color
    return 0.299 * red + 0.587 * green + 0.114 * blue > 140
