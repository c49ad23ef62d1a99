import io
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO
from zlib import compress, crc32

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from pacavit.data import decode_image, fit_image, read_image
from pacavit.data.formats import image as image_module
from pacavit.errors import DataError, ReadError
from pacavit.utils.files import open_regular

GRAY = np.linspace(0, 255, 48).reshape(6, 8).astype(np.uint8)


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    gray = Image.fromarray(GRAY)
    if mode == "I;16":
        image = Image.fromarray(GRAY.astype(np.uint16) * 257)
    elif mode == "I":
        image = Image.fromarray(GRAY.astype(np.int32) * 257)
    elif mode == "F":
        image = Image.fromarray(GRAY.astype(np.float32) / 255)
    else:
        image = gray.convert(mode)
    assert image.mode == mode
    pixels = read_image(save(image, tmp_path / "image.tiff"))
    assert pixels.shape == (3, 6, 8)
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous()
    expected = GRAY.astype(int) if mode != "1" else np.asarray(image).astype(int) * 255
    assert np.abs(pixels.numpy().astype(int) - expected).max() <= 1


def test_16_bit_png(tmp_path: Path) -> None:
    path = save(Image.fromarray(GRAY.astype(np.uint16) * 257), tmp_path / "image.png")
    assert np.array_equal(read_image(path).numpy(), np.stack([GRAY] * 3))


def test_floats_up_to_255(tmp_path: Path) -> None:
    path = save(Image.fromarray(GRAY.astype(np.float32)), tmp_path / "image.tiff")
    assert np.array_equal(read_image(path)[0].numpy(), GRAY)


def test_floats_that_are_not_finite(tmp_path: Path) -> None:
    path = save(Image.fromarray(np.full((2, 2), np.nan, np.float32)), tmp_path / "image.tiff")
    with pytest.raises(DataError, match=r"image\.tiff is a broken image: some gray values"):
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


def test_colors_are_kept_in_every_mode(tmp_path: Path) -> None:
    color = (200, 40, 90)
    image = Image.new("RGB", (16, 16), color)
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
        expected = torch.tensor(color)[:, None, None].expand(3, 16, 16)
        assert (pixels.int() - expected).abs().max() <= 2, path.name


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_16_bits_a_channel_become_8(color_type: int, channels: int) -> None:
    """Gray, gray with alpha, RGB, RGBA; Pillow does not write them."""
    values = np.array([[[0], [257 * 128], [65535]]], np.uint16).repeat(channels, axis=2)
    if channels in (2, 4):
        values[..., -1] = 65535  # opaque
    pixels = decode_image(png_16(values, color_type), "image")
    assert pixels.tolist() == [[[0, 128, 255]]] * 3


def test_16_bit_transparency_is_composited_on_white() -> None:
    values = np.array([[[65535, 0, 0, 65535], [65535, 0, 0, 0]]], np.uint16)
    pixels = decode_image(png_16(values, 6), "image")
    assert pixels.permute(1, 2, 0).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def png_16(values: np.ndarray[Any, Any], color_type: int) -> bytes:
    """(H, W, C) uint16 -> a PNG file, after https://www.w3.org/TR/png-3/."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
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


def test_images_are_fitted_by_their_center() -> None:
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
    path = save(Image.fromarray(GRAY).convert("RGB"), tmp_path / "image.png", exif=exif)
    assert np.array_equal(read_image(path)[0].numpy(), np.rot90(GRAY, -1))


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    path = save(frames[0], tmp_path / "image.gif", save_all=True, append_images=frames[1:])
    assert read_image(path)[:, 0, 0].tolist() == [255, 0, 0]


def test_bytes_are_decoded_like_files(tmp_path: Path) -> None:
    path = save(Image.fromarray(GRAY), tmp_path / "image.png")
    assert torch.equal(decode_image(path.read_bytes(), "upload"), read_image(path))


def test_pixel_limit(tmp_path: Path) -> None:
    path = save(Image.fromarray(GRAY), tmp_path / "image.png")
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
    path = save(Image.fromarray(GRAY), tmp_path / "image.png")
    path.chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        read_image(path)


@pytest.mark.parametrize("failures", [1, 2])
def test_a_failing_disk_is_asked_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    path, left = save(Image.fromarray(GRAY), tmp_path / "a.png"), failures

    def fail(path: Path) -> BinaryIO:
        nonlocal left
        if left:
            left -= 1
            raise OSError(5, "Input/output error")
        return open_regular(path)

    monkeypatch.setattr(image_module, "_RETRY_SECONDS", 0)
    monkeypatch.setattr(image_module, "open_regular", fail)
    if failures == 1:
        assert read_image(path).shape == (3, 6, 8)
    else:
        with pytest.raises(ReadError, match=r"cannot read .*a\.png: Input/output error"):
            read_image(path)


def png_with(*chunks: tuple[bytes, bytes], after: bool = False) -> bytes:
    """GRAY as a PNG file with further chunks before its pixels, or after them."""
    file = io.BytesIO()
    Image.fromarray(GRAY).save(file, "PNG")
    data = file.getvalue()
    at = len(data) - 12 if after else 33  # before IEND, or after IHDR
    return data[:at] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[at:]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))


def exif_bytes(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


LARGE = compress(bytes(3 * 2**20))  # more than Pillow's limit of 1 MiB for a text
LARGE_CHUNKS = {
    "compressed text": (b"zTXt", b"Comment\0\0" + LARGE),
    "compressed international text": (b"iTXt", b"Comment\0\1\0\0\0" + LARGE),
    "text": (b"tEXt", b"Comment\0" + b"x" * 70 * 2**20),
    "profile": (b"iCCP", b"scanner\0\0" + LARGE),
    "Exif as text": (b"zTXt", b"Raw profile type exif\0\0" + LARGE),
    "XMP": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE),
    "profile of an unknown compression": (b"iCCP", b"scanner\0\7" + LARGE),
    "empty profile": (b"iCCP", b""),
    "short chromaticities": (b"cHRM", b"\0"),
}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", LARGE_CHUNKS)
def test_metadata_of_png_files_never_make_pixels_unreadable(kind: str, after: bool) -> None:
    turned = (b"eXIf", exif_bytes(6).removeprefix(b"Exif\0\0"))
    for chunks, expected in (
        ([LARGE_CHUNKS[kind]], GRAY),
        ([LARGE_CHUNKS[kind], turned], np.rot90(GRAY, -1)),
        ([turned, LARGE_CHUNKS[kind]], np.rot90(GRAY, -1)),
    ):
        pixels = decode_image(png_with(*chunks, after=after), "image")
        assert np.array_equal(pixels[0].numpy(), expected)


def test_a_wrong_checksum_of_metadata_is_ignored_and_one_of_pixels_is_not() -> None:
    text = png_with((b"tEXt", b"Comment\0hello"))
    at = text.index(b"hello")
    pixels = decode_image(text[:at] + b"j" + text[at + 1 :], "image")
    assert np.array_equal(pixels[0].numpy(), GRAY)
    at = text.index(b"IHDR") + 4 + 13
    with pytest.raises(DataError, match="image is"):
        decode_image(text[:at] + b"\0\0\0\0" + text[at + 4 :], "image")


def test_the_limit_of_pixels_holds_without_metadata_as_well(tmp_path: Path) -> None:
    data = png_with(LARGE_CHUNKS["profile"])
    (tmp_path / "image.png").write_bytes(data)
    assert np.array_equal(read_image(tmp_path / "image.png")[0].numpy(), GRAY)
    assert decode_image(data, "image", max_pixels=48).shape == (3, 6, 8)
    with pytest.raises(DataError, match="8 x 6 pixels, more than the limit"):
        decode_image(data, "image", max_pixels=47)
    broken = bytearray(data)
    broken[-30:-12] = bytes(18)  # of the pixels
    with pytest.raises(DataError, match="broken image"):
        decode_image(bytes(broken), "image")


BROKEN_EXIF = {
    "nothing": b"Exif\0\0",
    "no TIFF header": b"Exif\0\0garbage, not a TIFF header",
    "directory outside": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "cut directory": b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01",
    "orientation is a text": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\2\0\2\0\0\0a\0\0\0\0\0\0\0",
    "orientation out of range": exif_bytes(9),
}


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("kind", BROKEN_EXIF)
def test_exif_that_cannot_be_parsed_is_ignored(format_: str, kind: str) -> None:
    plain, file = io.BytesIO(), io.BytesIO()
    image = Image.fromarray(GRAY).convert("RGB")
    image.save(plain, format_, lossless=True)
    image.save(file, format_, lossless=True, exif=BROKEN_EXIF[kind])
    expected = decode_image(plain.getvalue(), "image")
    assert torch.equal(decode_image(file.getvalue(), "image"), expected)


def test_a_tiff_file_with_a_broken_exif_directory(tmp_path: Path) -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[0x0112] = 6
    info[0x8769] = {0x9003: "2020:01:01 00:00:00"}
    path = save(Image.fromarray(GRAY), tmp_path / "image.tiff", tiffinfo=info)
    assert np.array_equal(read_image(path)[0].numpy(), np.rot90(GRAY, -1))
    data = path.read_bytes()
    entry = data.index(b"\x69\x87\x04\0\1\0\0\0")  # tag, type and count of the Exif directory
    path.write_bytes(data[: entry + 2] + b"\x06" + data[entry + 3 :])  # its place becomes negative
    with Image.open(path) as image, pytest.raises((ValueError, OSError)):
        image.load()
    assert np.array_equal(read_image(path)[0].numpy(), np.rot90(GRAY, -1))


JPEG_SEGMENTS = {
    "short JFIF": b"\xff\xe0\0\x07JFIF\0",
    "cut Photoshop block": b"\xff\xed\0\x16Photoshop 3.0\x008BIM\x04\x04",
    "short Adobe": b"\xff\xee\0\x07Adobe",
    "comment": b"\xff\xfe\0\x07hello",
}


@pytest.mark.parametrize("kind", JPEG_SEGMENTS)
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_malformed_segments_of_jpeg_files_are_ignored(kind: str, mode: str) -> None:
    file = io.BytesIO()
    image = Image.effect_noise((16, 8), 90).convert(mode)
    image.save(file, "JPEG", quality=95, exif=exif_bytes(6))
    data = file.getvalue()
    expected = decode_image(data, "image")
    assert expected.shape == (3, 16, 8)
    at = data.index(b"\xff\xdb")  # before the tables, after all that was there
    fixed = decode_image(data[:at] + JPEG_SEGMENTS[kind] + data[at:], "image")
    assert torch.equal(fixed, expected)


def test_an_alpha_channel_of_zeros_is_ignored(tmp_path: Path) -> None:
    """As 32-bit files have it that were written by programs that know no transparency."""
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (6, 8, 3), np.uint8)
    rgba = np.concatenate([colors, np.zeros((6, 8, 1), np.uint8)], axis=-1)
    image = Image.fromarray(rgba)
    bmp = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 14 + 108) + struct.pack(
        "<IiiHHIIiiIIIIII", 108, 8, 6, 1, 32, 3, 192, 0, 0, 0, 0,
        0xFF0000, 0xFF00, 0xFF, 0xFF000000,
    ).ljust(108, b"\0")  # fmt: skip
    (tmp_path / "a.bmp").write_bytes(bmp + rgba[::-1, :, [2, 1, 0, 3]].tobytes())
    files = [
        tmp_path / "a.bmp",
        save(image, tmp_path / "a.png"),
        save(image, tmp_path / "a.tiff"),
        save(image, tmp_path / "a.webp", lossless=True, exact=True),
    ]
    for file in files:
        assert np.array_equal(read_image(file).permute(1, 2, 0).numpy(), colors), file.name
    gray = Image.merge("LA", [Image.fromarray(GRAY), Image.new("L", (8, 6), 0)])
    assert np.array_equal(read_image(save(gray, tmp_path / "gray.png"))[1].numpy(), GRAY)
    rgba[2, 3, 3] = 255  # one opaque pixel: transparency is meant
    pixels = read_image(save(Image.fromarray(rgba), tmp_path / "b.png")).permute(1, 2, 0).numpy()
    expected = np.full_like(colors, 255)
    expected[2, 3] = colors[2, 3]
    assert np.array_equal(pixels, expected)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_and_devices_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "link.png"):
        with pytest.raises(DataError, match=rf"{name} is a pipe or device, not an image file"):
            read_image(tmp_path / name)


def test_names_that_are_not_utf8_are_shown_escaped(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    with pytest.raises(DataError, match=r"caf\\xe9\.png"):
        read_image(path)
    path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"caf\\xe9\.png is not an image"):
        read_image(path)
    Image.fromarray(GRAY).save(path)
    assert np.array_equal(read_image(path)[0].numpy(), GRAY)


def test_suffixes_are_those_of_the_formats_that_are_read() -> None:
    known = ".bmp .gif .jfif .jp2 .jpe .jpeg .jpg .mpo .pbm .pgm .png .pnm .ppm .tif .tiff .webp"
    assert set(known.split()) <= image_module.IMAGE_SUFFIXES
    assert not {".eps", ".psd", ".pdf", ".svg", ".ico", ".txt"} & image_module.IMAGE_SUFFIXES
