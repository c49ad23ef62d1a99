"""Masks in files: every way of writing down classes, and sets of images with masks."""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pacavit.data import (
    IGNORE_INDEX,
    Batch,
    Loader,
    MaskFiles,
    Placement,
    Preprocess,
    Region,
    Sample,
    SampleRandom,
    read_mask,
)
from pacavit.data.formats.masks import MaskCoding, find_values, palette_colors
from pacavit.data.formats.pairs import pair_folders
from pacavit.data.formats.walk import Skipped
from pacavit.data.masks import MaskStatistics, MemoryMasks, count_labels
from pacavit.errors import DataError

WritePairs = Callable[..., None]
BY_VALUE = MaskCoding.of((1, 3), None, ignored_values=(0, 255))
COLORS = ((255, 0, 0), (0, 0, 255))
BY_COLOR = MaskCoding.of(None, COLORS, ignored_colors=[(0, 0, 0)])
X = IGNORE_INDEX
VALUES = np.array([[0, 1], [3, 255], [1, 1]], np.uint8)
LABELS = [[X, 0], [1, X], [0, 0]]


def as_palette(values: NDArray[np.uint8], palette: list[int]) -> Image.Image:
    image = Image.fromarray(values)
    image = image.convert("P") if image.mode != "P" else image
    image.putdata(values.ravel().tolist())
    image.putpalette(palette)
    return image


def save(image: Image.Image, folder: Path, name: str = "mask.png") -> Path:
    image.save(folder / name)
    return folder / name


def gray_png(path: Path, values: NDArray[np.uint8], bits: int) -> Path:
    """A gray PNG of fewer than 8 bits, which Pillow does not write."""
    height, width = values.shape
    rows = b"".join(
        b"\0"
        + np.packbits(
            ((row[:, None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8).ravel()
        ).tobytes()
        for row in values
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def test_gray_values(tmp_path: Path) -> None:
    for name in ("mask.png", "mask.bmp", "mask.tif"):
        mask = read_mask(save(Image.fromarray(VALUES), tmp_path, name), BY_VALUE)
        assert mask.dtype == torch.uint8
        assert mask.tolist() == LABELS


def test_palettes_are_read_by_index_whatever_their_colors(tmp_path: Path) -> None:
    random = np.random.default_rng(0).integers(0, 256, 768).tolist()
    path = save(as_palette(VALUES, random), tmp_path)
    assert read_mask(path, BY_VALUE).tolist() == LABELS


def test_values_of_16_bits(tmp_path: Path) -> None:
    coding = MaskCoding.of((7, 40_000), None, ignored_values=(0,))
    values = np.array([[0, 7], [40_000, 7]], np.uint16)
    for name in ("mask.png", "mask.tif"):
        path = save(Image.fromarray(values), tmp_path, name)
        assert read_mask(path, coding).tolist() == [[X, 0], [1, 0]]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_values_of_few_bits_are_not_spread(tmp_path: Path, bits: int) -> None:
    values = np.arange(2**bits, dtype=np.uint8)[None]
    coding = MaskCoding.of(tuple(range(2**bits)), None)
    path = gray_png(tmp_path / "mask.png", values, bits)
    assert read_mask(path, coding).tolist() == values.tolist()


def test_gray_values_stored_as_rgb(tmp_path: Path) -> None:
    path = save(Image.fromarray(VALUES).convert("RGB"), tmp_path)
    assert read_mask(path, BY_VALUE).tolist() == LABELS


def test_colors(tmp_path: Path) -> None:
    pixels = np.array([[COLORS[0], COLORS[1]], [(0, 0, 0), COLORS[0]]], np.uint8)
    for image in (
        Image.fromarray(pixels),
        Image.fromarray(pixels).convert("RGBA"),
        # A program that makes files small replaces colors by a palette in any order.
        Image.fromarray(pixels).quantize(3),
    ):
        assert read_mask(save(image, tmp_path), BY_COLOR).tolist() == [[0, 1], [X, 0]]


def test_black_and_white_as_colors(tmp_path: Path) -> None:
    coding = MaskCoding.of(None, ((0, 0, 0), (255, 255, 255)))
    values = np.array([[0, 255, 255]], np.uint8)
    for mode in ("L", "1", "RGB"):
        path = save(Image.fromarray(values).convert(mode), tmp_path)
        assert read_mask(path, coding).tolist() == [[0, 1, 1]]


def test_values_and_colors_together(tmp_path: Path) -> None:
    coding = MaskCoding.of((1, 3), COLORS)
    gray = save(Image.fromarray(np.array([[1, 3]], np.uint8)), tmp_path, "gray.png")
    color = save(Image.fromarray(np.array([COLORS], np.uint8)), tmp_path, "color.png")
    assert read_mask(gray, coding).tolist() == read_mask(color, coding).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("coding", "image", "words"),
    [
        (BY_VALUE, Image.fromarray(np.array([[2, 1, 9]], np.uint8)), "of no class: 2, 9"),
        (BY_VALUE, Image.fromarray(np.array([COLORS], np.uint8)), "classes have no colors"),
        (BY_COLOR, Image.new("RGB", (2, 2), (1, 2, 3)), "of no class: #010203"),
        (BY_VALUE, Image.new("CMYK", (2, 2)), "no whole numbers"),
        (BY_VALUE, Image.new("F", (2, 2)), "no whole numbers"),
    ],
)
def test_masks_that_do_not_fit(
    tmp_path: Path, coding: MaskCoding, image: Image.Image, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        read_mask(save(image, tmp_path, "mask.tif"), coding)


def test_lossy_files_are_refused_whatever_their_name(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "mask.png", "JPEG")
    with pytest.raises(DataError, match="lossy compression"):
        read_mask(tmp_path / "mask.png", BY_VALUE)


def test_values_are_found(tmp_path: Path) -> None:
    paths = [
        save(Image.fromarray(np.full((2, 2), value, np.uint8)), tmp_path, f"{value}.png")
        for value in (4, 0, 9)
    ]
    (tmp_path / "broken.png").write_text("no image")
    color = save(Image.fromarray(np.array([COLORS], np.uint8)), tmp_path, "color.png")
    assert find_values([*paths, tmp_path / "broken.png", color]) == ((0, 4, 9), 1)


def test_colors_of_a_palette(tmp_path: Path) -> None:
    colored = save(as_palette(VALUES, [0, 0, 0, 255, 0, 0, 9, 9, 9, 0, 0, 255]), tmp_path, "c.png")
    assert palette_colors(colored, (1, 3)) == COLORS
    gray = save(as_palette(VALUES, [value for value in range(9) for _ in "rgb"]), tmp_path, "g.png")
    assert palette_colors(gray, (1, 3)) is None
    assert palette_colors(save(Image.fromarray(VALUES), tmp_path), (1, 3)) is None


def mask_files(root: Path, coding: MaskCoding | None = None, *, min_side: int = 1) -> MaskFiles:
    pairs, _ = pair_folders(root, root / "images", root / "masks", Skipped())
    coding = MaskCoding.of((0, 1, 2), None) if coding is None else coding
    return MaskFiles(root, pairs, coding, min_side=min_side)


@pytest.fixture
def root(tmp_path: Path, write_pairs: WritePairs) -> Path:
    write_pairs(tmp_path / "images", tmp_path / "masks", 5)
    return tmp_path


def test_samples_are_those_of_the_files(root: Path) -> None:
    images = mask_files(root)
    sample = images[3]
    assert np.array_equal(
        sample.image.permute(1, 2, 0).numpy(), np.array(Image.open(root / "images/3.png"))
    )
    assert np.array_equal(sample.target.numpy(), np.array(Image.open(root / "masks/3.png")))
    assert torch.equal(images.target(3), sample.target)
    assert torch.equal(images.image(3), sample.image)
    assert str(images.file(3)) == "images/3.png"
    assert images.location(3) == str(root / "images/3.png")
    copy = pickle.loads(pickle.dumps(images))
    assert torch.equal(copy[3].target, sample.target)


def test_statistics_are_counts_over_all_masks(root: Path) -> None:
    coding = MaskCoding.of((1, 2), None, ignored_values=(0,))
    Image.fromarray(np.full((24, 32), 2, np.uint8)).save(root / "masks" / "4.png")
    found = mask_files(root, coding).statistics
    masks = np.stack([np.array(Image.open(root / f"masks/{number}.png")) for number in range(5)])
    assert found.pixels.tolist() == [(masks == 1).sum(), (masks == 2).sum()]
    assert found.images.tolist() == [4, 5]
    assert found.shown_in.tolist() == [4 * 24 * 32, 5 * 24 * 32]
    assert found.unlabeled == (masks == 0).sum()
    assert found.empty == ()


def test_unlabeled_images_are_named(root: Path) -> None:
    coding = MaskCoding.of((1, 2), None, ignored_values=(0,))
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(root / "masks" / "2.png")
    assert mask_files(root, coding).statistics.empty == (str(root / "images/2.png"),)


def test_counts_in_memory_equal_those_in_files(root: Path) -> None:
    files = mask_files(root)
    samples = [files[index] for index in range(len(files))]
    memory = MemoryMasks(
        torch.stack([each.image for each in samples]),
        torch.stack([each.target for each in samples]),
        3,
    )
    assert torch.equal(memory.pixel_counts, files.pixel_counts)
    assert torch.equal(memory[1].image, samples[1].image)
    assert torch.equal(memory.target(1), samples[1].target)


def test_many_masks_are_checked_by_workers(tmp_path: Path, write_pairs: WritePairs) -> None:
    write_pairs(tmp_path / "images", tmp_path / "masks", 300, size=(4, 4))
    images = mask_files(tmp_path)
    alone = [count_labels(images.target(index), 3) for index in range(300)]
    names = [images.location(index) for index in range(300)]
    expected = MaskStatistics.of(zip(names, alone, strict=True), 3)
    assert torch.equal(images.statistics.pixels, expected.pixels)


def test_images_turned_by_exif_have_masks_as_they_are_shown(root: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(root / "images" / "0.png", exif=exif)
    with pytest.raises(DataError, match=r"1 mask fits its image only without .* EXIF orientation"):
        mask_files(root).scan("masks")
    Image.fromarray(np.zeros((32, 24), np.uint8)).save(root / "masks" / "0.png")
    images = mask_files(root)
    images.scan("masks")
    assert images[0].image.shape == (3, 32, 24)
    assert images.sample_sizes(1) == [(32, 24)]


def test_all_faults_are_counted_and_named_on_one_line(root: Path) -> None:
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(root / "masks" / "0.png")
    Image.fromarray(np.full((24, 32), 7, np.uint8)).save(root / "masks" / "1.png")
    Image.fromarray(np.full((24, 32), 8, np.uint8)).save(root / "masks" / "2.png")
    with pytest.raises(DataError) as error:
        mask_files(root).scan("masks")
    assert str(error.value) == (
        f"{root}: 1 mask has another size than its image (masks/0.png: 9 x 9 pixels, the image "
        "32 x 24 pixels): save each mask with the width and height of its image; 2 masks have "
        "values or colors that are of no class (masks/1.png: 7; masks/2.png: 8): add them to the "
        "list of classes, or to data.options.ignore"
    )


def test_small_images_are_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"5 images are too small .*32 x 24 pixels, 30 a side"):
        mask_files(root, min_side=30).scan("masks")


class _Stored(Preprocess):
    """Images as they are stored."""

    per_sample = True

    def sample(self, sample: Sample, random: SampleRandom) -> tuple[Sample, Placement]:
        size = sample.image.shape[1], sample.image.shape[2]
        return sample, Placement(size, Region(0, 0, *size), size)

    def batch(self, batch: Batch, random: SampleRandom) -> Batch:
        return replace(batch, images=batch.images.float())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_broken_files_are_left_out_and_reported(root: Path, num_workers: int) -> None:
    (root / "masks" / "1.png").write_text("no image")
    (root / "images" / "3.png").write_text("no image")
    images = mask_files(root)
    images.scan("masks")
    assert list(images.broken) == [str(root / "images/1.png")]
    loader = Loader(
        images,
        1,
        _Stored(),
        shuffle=False,
        drop_last=False,
        seed=0,
        num_workers=num_workers,
    )
    assert [int(batch.indices) for batch in loader.epoch(0)] == [0, 2, 4]
    assert sorted(images.broken) == [str(root / f"images/{number}.png") for number in (1, 3)]
    assert "masks/1.png is not an image" in images.broken[str(root / "images/1.png")]


def test_a_set_of_broken_masks_is_refused(root: Path) -> None:
    for number in range(5):
        (root / "masks" / f"{number}.png").write_text("no image")
    with pytest.raises(DataError, match=r"no usable mask .*\(and 2 more\)"):
        mask_files(root).scan("masks")


def test_a_set_without_labels_is_refused(root: Path) -> None:
    coding = MaskCoding.of((8, 9), None, ignored_values=(0, 1, 2))
    with pytest.raises(DataError, match="none of the 5 masks has a pixel of a class"):
        mask_files(root, coding).scan("masks")


def test_masks_that_change_after_they_were_checked_are_broken(root: Path) -> None:
    images = mask_files(root)
    images.scan("masks")
    Image.fromarray(np.full((24, 32), 7, np.uint8)).save(root / "masks" / "1.png")
    with pytest.raises(DataError, match=r"masks/1.png: .* of no class: 7; add them"):
        images[1]
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(root / "masks" / "1.png")
    with pytest.raises(DataError, match="another size than its image"):
        images[1]
