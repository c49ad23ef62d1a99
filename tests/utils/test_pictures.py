"""Pictures keep their pixels on the way to files and data URLs."""

from base64 import b64decode
from collections.abc import Callable
from io import BytesIO

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from pacavit.utils import pictures


def colors(height: int = 5, width: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def opened(data: bytes) -> Image.Image:
    with Image.open(BytesIO(data)) as image:
        image.load()
        return image


@pytest.mark.parametrize("make", [colors, lambda: colors(700, 650), lambda: colors()[0] > 127])
def test_png_files_hold_every_pixel(make: Callable[[], Tensor]) -> None:
    picture = make()
    image = opened(pictures.png_bytes(picture))
    assert image.format == "PNG"
    assert image.mode == ("RGB" if picture.ndim == 3 else "1")
    assert torch.equal(pictures.from_pillow(image), picture)


def test_a_transposed_picture_is_not_garbled() -> None:
    picture = colors().mT
    assert torch.equal(pictures.from_pillow(pictures.pillow_image(picture)), picture)


def test_jpeg_files_hold_nearly_the_same() -> None:
    picture = torch.full((3, 16, 16), 99, dtype=torch.uint8)
    image = opened(pictures.jpeg_bytes(picture))
    assert image.format == "JPEG"
    difference = pictures.from_pillow(image).int() - picture.int()
    assert difference.abs().max() <= 2


def test_urls_hold_the_file() -> None:
    head, _, text = pictures.png_uri(colors()).partition(",")
    assert head == "data:image/png;base64"
    assert b64decode(text) == pictures.png_bytes(colors())
    assert pictures.data_uri(b"<svg/>", "image/svg+xml") == "data:image/svg+xml;base64,PHN2Zy8+"


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_figures_become_files(kind: str, start: bytes) -> None:
    figure = Figure(figsize=(1, 1))
    figure.subplots()
    assert pictures.figure_bytes(figure, kind, dpi=30).startswith(start)
