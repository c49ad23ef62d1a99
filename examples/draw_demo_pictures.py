"""Draw the example pictures of ``pacavit demo``: objects of five classes of CIFAR-10.

::

    python examples/draw_demo_pictures.py --out src/pacavit/demo/pictures

They are drawn, not photographed, so that no third party has rights in them. All coordinates are
fractions of the side, from the upper left corner.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Color = tuple[int, int, int]

DRAWN, SIZE = 512, 256  # pixels of a side
BLACK, GLASS, LAMP = (28, 28, 30), (150, 185, 205), (250, 240, 200)


class Drawing:
    """A square picture, initially a gradient from top to bottom."""

    def __init__(self, top: Color, bottom: Color) -> None:
        share = np.linspace(0, 1, DRAWN)[:, None, None]
        rows = (1 - share) * np.array(top) + share * np.array(bottom)
        self.image = Image.fromarray(np.repeat(rows, DRAWN, axis=1).astype(np.uint8))

    @property
    def pen(self) -> ImageDraw.ImageDraw:
        """Draws on the picture as it is now."""
        return ImageDraw.Draw(self.image)

    def polygon(self, color: Color, *corners: tuple[float, float]) -> None:
        """An area between corners (x, y)."""
        self.pen.polygon([(x * DRAWN, y * DRAWN) for x, y in corners], fill=color)

    def box(self, color: Color, left: float, top: float, right: float, bottom: float) -> None:
        """A rectangle."""
        self.pen.rectangle([DRAWN * side for side in (left, top, right, bottom)], fill=color)

    def disc(self, color: Color, left: float, top: float, right: float, bottom: float) -> None:
        """An ellipse that fills a box."""
        self.pen.ellipse([DRAWN * side for side in (left, top, right, bottom)], fill=color)

    def wheel(self, x: float, y: float, radius: float) -> None:
        """A tire with its rim."""
        for color, part in ((BLACK, 1.0), ((185, 188, 192), 0.52), ((90, 90, 95), 0.16)):
            self.disc(
                color, *(center + side * part * radius for side in (-1, 1) for center in (x, y))
            )

    def blur(self, radius: float) -> None:
        """Blur the picture so far."""
        self.image = self.image.filter(ImageFilter.GaussianBlur(radius))

    def finished(self) -> Image.Image:
        """The picture with a little grain, as photographs have it."""
        grain = np.random.default_rng(0).normal(128, 30, (64, 64)).clip(0, 255).astype(np.uint8)
        large = Image.fromarray(grain).resize(self.image.size, Image.Resampling.BICUBIC)
        noisy = np.asarray(self.image) + (np.asarray(large, float)[..., None] - 128) / 10
        picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        soft = picture.filter(ImageFilter.GaussianBlur(1.2))
        return soft.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def airplane() -> Drawing:
    """In the sky, with two clouds."""
    sky = Drawing((70, 130, 200), (170, 205, 235))
    for x, y in ((0.15, 0.8), (0.7, 0.15)):
        for part in range(4):
            left, top = x + 0.06 * part - 0.08, y - 0.03 * (part % 2) - 0.04
            sky.disc((225, 235, 245), left, top, left + 0.16, y + 0.05)
    sky.blur(9)
    sky.polygon((150, 155, 165), (0.44, 0.5), (0.25, 0.78), (0.33, 0.79), (0.58, 0.53))
    sky.polygon((175, 180, 190), (0.48, 0.46), (0.43, 0.25), (0.49, 0.25), (0.6, 0.46))
    belly = ((0.85, 0.51), (0.7, 0.55), (0.2, 0.55))
    back = ((0.1, 0.5), (0.16, 0.44), (0.72, 0.41), (0.86, 0.44), (0.9, 0.475))
    sky.polygon((238, 240, 244), *back, *belly)
    sky.polygon((190, 196, 206), (0.1, 0.5), *belly[::-1], (0.9, 0.475), (0.7, 0.5))
    sky.polygon((200, 60, 55), (0.1, 0.5), (0.08, 0.27), (0.15, 0.27), (0.26, 0.45))
    sky.polygon((165, 170, 180), (0.12, 0.5), (0.05, 0.58), (0.11, 0.58), (0.22, 0.52))
    sky.polygon((50, 60, 80), (0.82, 0.44), (0.86, 0.45), (0.87, 0.465), (0.81, 0.46))
    for window in range(9):
        left = 0.28 + 0.055 * window
        sky.disc((60, 80, 110), left, 0.46, left + 0.015, 0.475)
    return sky


def automobile() -> Drawing:
    """Red, on a road."""
    street = road((165, 200, 230))
    street.disc((70, 70, 72), 0.08, 0.8, 0.94, 0.88)
    roof = ((0.32, 0.43), (0.38, 0.41), (0.64, 0.41), (0.76, 0.55))
    sides = ((0.92, 0.59), (0.94, 0.72), (0.92, 0.79), (0.09, 0.79))
    street.polygon((190, 30, 35), (0.07, 0.72), (0.08, 0.6), (0.2, 0.56), *roof, *sides)
    street.polygon(GLASS, (0.25, 0.56), (0.345, 0.455), (0.48, 0.45), (0.48, 0.56))
    street.polygon(GLASS, (0.51, 0.56), (0.51, 0.45), (0.63, 0.45), (0.71, 0.56))
    street.polygon((140, 20, 26), (0.07, 0.72), (0.94, 0.72), (0.92, 0.79), (0.09, 0.79))
    street.box(LAMP, 0.88, 0.61, 0.935, 0.65)
    street.box((255, 190, 120), 0.075, 0.62, 0.11, 0.66)
    street.box((110, 15, 20), 0.53, 0.59, 0.58, 0.605)
    for x in (0.26, 0.75):
        street.wheel(x, 0.79, 0.095)
    return street


def bird() -> Drawing:
    """On a branch, before leaves out of focus."""
    leaves = Drawing((150, 175, 120), (95, 125, 80))
    random = np.random.default_rng(1)
    for green in ((120, 150, 95), (85, 115, 70), (165, 185, 130)) * 13:
        (x, y), radius = random.random(2), 0.05 + 0.1 * random.random()
        leaves.disc(green, x - radius, y - radius, x + radius, y + radius)
    leaves.blur(22)
    leaves.polygon((95, 70, 50), (0, 0.8), (1, 0.72), (1, 0.77), (0, 0.86))
    leaves.polygon((70, 62, 58), (0.3, 0.58), (0.05, 0.8), (0.11, 0.84), (0.42, 0.68))
    leaves.disc((150, 95, 60), 0.26, 0.38, 0.68, 0.74)
    leaves.polygon((85, 70, 62), (0.3, 0.5), (0.5, 0.4), (0.52, 0.62), (0.2, 0.7))
    leaves.disc((225, 150, 90), 0.42, 0.5, 0.68, 0.74)
    leaves.disc((120, 80, 58), 0.52, 0.24, 0.76, 0.48)
    leaves.disc((225, 150, 90), 0.58, 0.36, 0.75, 0.52)
    leaves.polygon((235, 190, 70), (0.74, 0.34), (0.86, 0.385), (0.745, 0.405))
    leaves.disc(BLACK, 0.655, 0.31, 0.69, 0.345)
    leaves.disc((240, 240, 240), 0.668, 0.315, 0.678, 0.325)
    for x in (0.45, 0.53):
        leaves.box((70, 55, 45), x - 0.007, 0.72, x + 0.007, 0.79)
    return leaves


def ship() -> Drawing:
    """A steamer at sea."""
    sea = Drawing((150, 190, 225), (205, 220, 232))
    water = Drawing((50, 95, 130), (20, 55, 90)).image
    sea.image.paste(water.crop((0, 0, DRAWN, round(0.36 * DRAWN))), (0, round(0.64 * DRAWN)))
    random = np.random.default_rng(0)
    for x, y, length in random.random((160, 3)):
        height = 0.65 + 0.35 * y
        sea.box((95, 140, 170), x, height, x + 0.02 + 0.05 * length, height + 0.002)
    sea.polygon((45, 50, 62), (0.08, 0.55), (0.94, 0.53), (0.86, 0.7), (0.16, 0.7))
    sea.polygon((150, 45, 40), (0.135, 0.64), (0.885, 0.64), (0.86, 0.7), (0.16, 0.7))
    for box in ((0.2, 0.44, 0.7, 0.55), (0.26, 0.35, 0.6, 0.44), (0.3, 0.28, 0.42, 0.35)):
        sea.box((238, 238, 236), *box)
    sea.box((200, 70, 50), 0.46, 0.18, 0.54, 0.35)
    sea.box((40, 40, 45), 0.46, 0.18, 0.54, 0.21)
    for number, first, top in ((9, 0.22, 0.47), (6, 0.28, 0.38)):
        for window in range(number):
            left = first + 0.052 * window
            sea.box((70, 95, 120), left, top, left + 0.025, top + 0.03)
    sea.box((90, 90, 95), 0.796, 0.3, 0.804, 0.54)
    sea.polygon((90, 90, 95), (0.8, 0.32), (0.8, 0.33), (0.7, 0.5), (0.695, 0.5))
    return sea


def truck() -> Drawing:
    """Blue and white, on a road."""
    street = road((160, 195, 225))
    street.disc((70, 70, 72), 0.03, 0.82, 0.97, 0.9)
    street.box((236, 236, 232), 0.04, 0.22, 0.64, 0.72)
    street.box((205, 205, 200), 0.04, 0.22, 0.64, 0.25)
    street.box((40, 90, 160), 0.04, 0.44, 0.64, 0.52)
    street.box((60, 60, 64), 0.04, 0.72, 0.95, 0.79)
    nose = ((0.9, 0.52), (0.96, 0.55), (0.96, 0.76))
    street.polygon((40, 90, 160), (0.67, 0.74), (0.67, 0.34), (0.83, 0.34), *nose)
    street.polygon(GLASS, (0.72, 0.52), (0.72, 0.4), (0.81, 0.4), (0.86, 0.52))
    street.box(LAMP, 0.92, 0.62, 0.965, 0.67)
    street.box((190, 190, 195), 0.9, 0.73, 0.97, 0.78)
    for x in (0.15, 0.32, 0.8):
        street.wheel(x, 0.785, 0.085)
    return street


def road(sky: Color) -> Drawing:
    """Below the sky, with grass on its far side."""
    drawing = Drawing(sky, (220, 230, 235))
    drawing.box((110, 140, 85), 0, 0.6, 1, 0.72)
    drawing.box((105, 105, 108), 0, 0.72, 1, 1)
    drawing.box((170, 170, 165), 0, 0.715, 1, 0.73)
    return drawing


SCENES: tuple[Callable[[], Drawing], ...] = (airplane, automobile, bird, ship, truck)


def main() -> None:
    """Read the command line and write the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    out = parser.parse_args().out
    for scene in SCENES:
        scene().finished().save(out / f"{scene.__name__}.jpg", quality=90)


if __name__ == "__main__":
    main()
