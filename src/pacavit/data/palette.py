"""Colors of classes in overlays and legends."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from pacavit.data.base import Color

__all__ = ["class_colors"]

_BACKGROUND: Color = (64, 64, 64)
_LEVELS = (0, 51, 102, 153, 204, 255)
_FIRST: Color = (204, 51, 51)


def class_colors(names: Sequence[str]) -> tuple[Color, ...]:
    """A color for each class: always the same ones, each far from those before it.

    A class called "background" is dark gray.

    Args:
        names: of the classes, in label order; up to 255.
    """
    wanted = [name for name in names if name.lower() != "background"]
    colors = iter(_distinct(len(wanted)))
    return tuple(_BACKGROUND if name not in wanted else next(colors) for name in names)


@cache
def _distinct(num: int) -> tuple[Color, ...]:
    """Colors of a 6 x 6 x 6 cube, then of a finer one, each with the largest distance to others.

    Grays and colors near the background's are left out. Distances are weighted like the eye's
    sensitivity to red, green and blue, and are integers, so that they are the same everywhere.
    """
    levels = _LEVELS if num <= 128 else tuple(range(0, 256, 17))
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    cube = cube[np.ptp(cube, axis=1) >= 51]
    weights = np.array([2, 4, 3])
    chosen = [np.array(_FIRST)]
    nearest = np.full(len(cube), np.iinfo(np.int64).max)
    taken = np.array([_BACKGROUND, (0, 0, 0), (255, 255, 255)])
    for color in (*taken, chosen[0]):
        nearest = np.minimum(nearest, (weights * (cube - color) ** 2).sum(1))
    while len(chosen) < num:
        chosen.append(cube[nearest.argmax()])
        nearest = np.minimum(nearest, (weights * (cube - chosen[-1]) ** 2).sum(1))
    return tuple((int(red), int(green), int(blue)) for red, green, blue in chosen[:num])
