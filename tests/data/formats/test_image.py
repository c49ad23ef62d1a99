import io
import os
import struct
from pathlib import Path
from typing import Any
from zlib import compress, crc32

import numpy as np
import pytest
import torch
from PIL import Image

from pacavit.data import decode_image, fit_image, read_image
from pacavit.data.formats import image as image_module
from pacavit.errors import DataError, ReadError

GREY = np.linspace(0, 255, 48).reshape(6, 8).astype(np.uint8)


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(GREY)
    if mode == "I;16":
        image = Image.fromarray(GREY.astype(np.uint16) * 257)
    elif mode == "I":
        image = Image.fromarray(GREY.astype(np.int32) * 257)
    elif mode == "F":
        image = Image.fromarray(GREY.astype(np.float32) / 255)
    else:
        image = grey.convert(mode)
    assert image.mode == mode
    pixels = read_image(save(image, tmp_path / "image.tiff"))
    assert pixels.shape == (3, 6, 8)
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous()
    expected = GREY.astype(int) if mode != "1" else np.asarray(image).astype(int) * 255
    assert np.abs(pixels.numpy().astype(int) - expected).max() <= 1


def test_16_bit_png(tmp_path: Path) -> None:
    path = save(Image.fromarray(GREY.astype(np.uint16) * 257), tmp_path / "image.png")
    assert np.array_equal(read_image(path).numpy(), np.stack([GREY] * 3))


def test_floats_up_to_255(tmp_path: Path) -> None:
    path = save(Image.fromarray(GREY.astype(np.float32)), tmp_path / "image.tiff")
    assert np.array_equal(read_image(path)[0].numpy(), GREY)


def test_floats_that_are_not_finite(tmp_path: Path) -> None:
    path = save(Image.fromarray(np.full((2, 2), np.nan, np.float32)), tmp_path / "image.tiff")
    with pytest.raises(DataError, match=r"image\.tiff is a broken image: some grey values"):
        read_image(path)


def test_transparent_pixels_lie_on_white(tmp_path: Path) -> None:
    rgba = Image.fromarray(np.array([[[9, 9, 9, 0], [9, 9, 9, 255]]], np.uint8))
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 9, 9, 9])
    palette.info["transparency"] = 0
    for number, image in enumerate([rgba, rgba.convert("LA"), palette]):
        pixels = read_image(save(image, tmp_path / f"{number}.png"))
        assert pixels[:, 0, 0].tolist() == [255, 255, 255]
        assert pixels[:, 0, 1].tolist() == [9, 9, 9]


def test_colours_survive_every_mode(tmp_path: Path) -> None:
    colour = (200, 40, 90)
    image = Image.new("RGB", (16, 16), colour)
    paths = [
        save(image.convert("CMYK"), tmp_path / "cmyk.tiff"),
        save(image.convert("CMYK"), tmp_path / "cmyk.jpg", quality=100),
        # Pillow 12 cannot read what it writes in this mode without compression.
        save(image.convert("YCbCr"), tmp_path / "ycbcr.tiff", compression="tiff_lzw"),
        save(image.quantize(4), tmp_path / "palette.png"),
        save(image.quantize(4), tmp_path / "palette.gif"),
        save(image.convert("RGBA"), tmp_path / "alpha.webp", lossless=True),
    ]
    for path in paths:
        pixels = read_image(path)
        expected = torch.tensor(colour)[:, None, None].expand(3, 16, 16)
        assert (pixels.int() - expected).abs().max() <= 2, path.name


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_16_bits_a_channel_become_8(colour_type: int, channels: int) -> None:
    """Grey, grey with alpha, RGB, RGBA; Pillow does not write them."""
    values = np.array([[[0], [257 * 128], [65535]]], np.uint16).repeat(channels, axis=2)
    if channels in (2, 4):
        values[..., -1] = 65535  # opaque
    pixels = decode_image(png_16(values, colour_type), "image")
    assert pixels.tolist() == [[[0, 128, 255]]] * 3


def test_16_bit_transparency_lies_on_white() -> None:
    values = np.array([[[65535, 0, 0, 65535], [65535, 0, 0, 0]]], np.uint16)
    pixels = decode_image(png_16(values, 6), "image")
    assert pixels.permute(1, 2, 0).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def png_16(values: np.ndarray[Any, Any], colour_type: int) -> bytes:
    """(H, W, C) uint16 -> a PNG file, after https://www.w3.org/TR/png-3/."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", compress(rows)), chunk(b"IEND", b"")]
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation(tmp_path: Path, orientation: int) -> None:
    """The stored pixels are what a camera held in that way would have written."""
    upright = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    stored = {
        1: upright,
        2: np.fliplr(upright),
        3: np.rot90(upright, 2),
        4: np.flipud(upright),
        5: upright.T,
        6: np.rot90(upright),
        7: np.rot90(upright, 2).T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    pixels = read_image(save(image, tmp_path / "image.png", exif=exif))
    assert np.array_equal(pixels[0].numpy(), upright)


def test_images_are_fitted_by_their_centre() -> None:
    columns = torch.arange(40, dtype=torch.uint8).expand(3, 20, 40)
    assert torch.equal(fit_image(columns, (20, 20)), columns[:, :, 10:30])
    assert torch.equal(fit_image(columns, (20, 40)), columns)
    small = fit_image(columns.contiguous(), (10, 10))
    assert small.shape == (3, 10, 10)
    assert small.dtype == torch.uint8
    assert (small[0, 5].int() - torch.arange(10, 30, 2)).abs().max() <= 1


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned clockwise by a quarter for display
    path = save(Image.fromarray(GREY).convert("RGB"), tmp_path / "image.png", exif=exif)
    assert np.array_equal(read_image(path)[0].numpy(), np.rot90(GREY, -1))


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    path = save(frames[0], tmp_path / "image.gif", save_all=True, append_images=frames[1:])
    assert read_image(path)[:, 0, 0].tolist() == [255, 0, 0]


def test_bytes_are_decoded_like_files(tmp_path: Path) -> None:
    path = save(Image.fromarray(GREY), tmp_path / "image.png")
    assert torch.equal(decode_image(path.read_bytes(), "upload"), read_image(path))


def test_pixel_limit(tmp_path: Path) -> None:
    path = save(Image.fromarray(GREY), tmp_path / "image.png")
    assert read_image(path, max_pixels=48).shape == (3, 6, 8)
    with pytest.raises(DataError, match=r"8 x 6 pixels, more than the limit"):
        read_image(path, max_pixels=47)


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_decompression_bombs_raise_one_clear_error(tmp_path: Path, side: int) -> None:
    """Between Pillow's two limits it warns, above them it raises; here both are the same."""
    header = f"P5 {side} {side} 255\n".encode()
    (tmp_path / "bomb.pgm").write_bytes(header)
    with pytest.raises(DataError, match=r"bomb\.pgm has .*pixels"):
        read_image(tmp_path / "bomb.pgm")


def broken_files() -> dict[str, bytes]:
    png, jpeg = io.BytesIO(), io.BytesIO()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    noise.save(png, "PNG")
    noise.save(jpeg, "JPEG")
    return {
        "empty": b"",
        "text": b"hello",
        "truncated_png": png.getvalue()[:2000],
        "truncated_jpeg": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        "header_only": png.getvalue()[:20],
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    }


@pytest.mark.parametrize("kind", broken_files())
def test_broken_files_raise_one_line_with_the_path(tmp_path: Path, kind: str) -> None:
    (tmp_path / kind).write_bytes(broken_files()[kind])
    with pytest.raises(DataError) as caught:
        read_image(tmp_path / kind)
    assert str(tmp_path / kind) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no image file .*nothing\.png"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(DataError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = save(Image.fromarray(GREY), tmp_path / "image.png")
    path.chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        read_image(path)


@pytest.mark.parametrize("failures", [1, 2])
def test_a_failing_disk_is_asked_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    path, left, original = save(Image.fromarray(GREY), tmp_path / "a.png"), failures, Path.open

    def fail(self: Path, *arguments: Any, **options: Any) -> Any:
        nonlocal left
        if self == path and left:
            left -= 1
            raise OSError(5, "Input/output error")
        return original(self, *arguments, **options)

    monkeypatch.setattr(image_module, "_RETRY_SECONDS", 0)
    monkeypatch.setattr(Path, "open", fail)
    if failures == 1:
        assert read_image(path).shape == (3, 6, 8)
    else:
        with pytest.raises(ReadError, match=r"cannot read .*a\.png: Input/output error"):
            read_image(path)
