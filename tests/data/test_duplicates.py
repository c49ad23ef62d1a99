"""Images in two splits: exact copies and near-duplicates."""

import csv
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pacavit.data import (
    SPLITS,
    Cifar10,
    Digits,
    Folder,
    LabeledImages,
    Masks,
    MemoryImages,
    Split,
)
from pacavit.data.duplicates import describe_duplicates, duplicates_csv, find_duplicates


def photograph(seed: int) -> Image.Image:
    """A picture with structure of many sizes, no two seeds alike."""
    generator = torch.Generator().manual_seed(seed)
    layers = [
        torch.nn.functional.interpolate(
            torch.rand(1, 3, size, size, generator=generator), size=(96, 96), mode="bicubic"
        )
        for size in (2, 4, 8, 16)
    ]
    pixels = (torch.stack(layers).mean(0)[0].clamp(0, 1) * 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one exact copy in val, one smaller JPEG of a training image in test."""
    seeds = iter(range(100))
    for split, num in (("train", 12), ("val", 4), ("test", 4)):
        for name in ("ant", "bee"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(num // 2):
                photograph(next(seeds)).save(folder / f"{number}.png")
    train = tmp_path / "train" / "bee" / "2.png"
    shutil.copy(train, tmp_path / "val" / "bee" / "copy.png")
    image = Image.open(train).resize((80, 80))
    image.save(tmp_path / "test" / "ant" / "small.jpg", quality=60)
    return tmp_path


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("broken", [True, False])
def test_copies_and_near_copies_are_named(root: Path, in_memory: bool, broken: bool) -> None:
    if broken:  # images in memory are numbered without it
        (root / "train" / "ant" / "0.png").write_bytes(b"no image")
        (root / "test" / "ant" / "0.png").write_bytes(b"no image either")
    source = Folder(root, in_memory=in_memory)
    splits = {split: source.load(split) for split in SPLITS[:2]}
    files: dict[Split, LabeledImages] = {}
    for split in SPLITS:
        listed = source.files(split)
        assert listed is not None
        files[split] = listed
    exact, near = find_duplicates(splits, files)
    train = str(root / "train" / "bee" / "2.png")
    assert exact == ("val", str(root / "val" / "bee" / "copy.png"), "train", train, True)
    assert near == ("test", str(root / "test" / "ant" / "small.jpg"), "train", train, False)
    assert describe_duplicates([exact, near], root) == (
        "val/bee/copy.png (val) equals train/bee/2.png (train); "
        "test/ant/small.jpg (test) resembles train/bee/2.png (train)"
    )
    rows = list(csv.DictReader(io.StringIO(duplicates_csv([exact, near]))))
    assert [row["other_image"] for row in rows] == [train, train]
    assert [row["exact"] for row in rows] == ["True", "False"]


def test_images_in_memory_have_numbers() -> None:
    pictures = [np.array(photograph(seed)) for seed in range(6)]
    stack = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    train = MemoryImages(stack[:4], torch.zeros(4, dtype=torch.int64))
    brighter = (stack[1] * 1.1).clamp(0, 255).byte()
    val = MemoryImages(
        torch.stack([stack[5], stack[3], brighter]), torch.zeros(3, dtype=torch.int64)
    )
    assert find_duplicates({"train": train, "val": val}, {}) == [
        ("val", "image 1", "train", "image 3", True),
        ("val", "image 2", "train", "image 1", False),
    ]


def test_plain_images_of_different_colors_are_no_duplicates() -> None:
    colors = torch.arange(0, 240, 10, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 20, 20)
    labels = torch.zeros(12, dtype=torch.int64)
    splits: dict[Split, MemoryImages] = {
        "train": MemoryImages(colors[::2], labels),
        "val": MemoryImages(colors[1::2], labels),
    }
    assert find_duplicates(splits, {}) == []


def test_images_with_masks(tmp_path: Path, write_pairs: Callable[..., None]) -> None:
    for split, num in (("train", 6), ("val", 5), ("test", 4)):
        write_pairs(tmp_path / "images" / split, tmp_path / "masks" / split, num)
    copy = (tmp_path / "images" / "train" / "2.png").read_bytes()
    (tmp_path / "images" / "test" / "1.png").write_bytes(copy)
    Image.open(tmp_path / "images" / "train" / "4.png").resize((64, 48)).save(
        tmp_path / "images" / "val" / "3.png"
    )
    Image.new("L", (64, 48)).save(tmp_path / "masks" / "val" / "3.png")
    source = Masks(tmp_path)
    files = {split: source.files(split) for split in SPLITS}
    found = find_duplicates(
        {"train": source.load("train"), "val": source.load("val")},
        {split: images for split, images in files.items() if images is not None},
    )
    assert [(Path(each.image).name, each.split, each.exact) for each in found] == [
        ("1.png", "test", True),
        ("3.png", "val", False),
    ]


def test_similar_images_of_a_class_are_no_duplicates() -> None:
    digits = Digits()
    found = find_duplicates({split: digits.load(split) for split in SPLITS}, {})
    assert len(found) < 0.02 * 540


@pytest.mark.realdata
@pytest.mark.slow
def test_known_duplicates_of_cifar10(shared_dir: Path) -> None:
    # Barz and Denzler, "Do we train on test data?", 2020, report 286 near-duplicates (2.9 %) of
    # test images in the training set, shifted and cropped ones among them, and no exact copies.
    source = Cifar10(shared_dir / "data" / "cifar10-jpeg", val_size=0)
    found = find_duplicates({"train": source.load("train"), "test": source.load("test")}, {})
    assert not any(each.exact for each in found)
    assert 50 <= len(found) <= 286
