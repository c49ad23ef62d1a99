"""ADE20K's layout: tiny copies, and the real street scenes of CamVid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pacavit.data import IGNORE_INDEX, SPLITS, Ade20k
from pacavit.errors import DataError

WritePairs = Callable[..., None]
FOLDERS = {"train": "training", "val": "validation", "test": "test"}


@pytest.fixture
def root(tmp_path: Path, write_pairs: WritePairs) -> Path:
    """Two classes, and unlabeled pixels, in 5 + 3 + 2 images."""
    for name, num in (("training", 5), ("validation", 3), ("test", 2)):
        write_pairs(tmp_path / "images" / name, tmp_path / "annotations" / name, num)
    (tmp_path / "objectInfo150.txt").write_text("Idx\tName\n1\twall, side\n2\tsky\n")
    return tmp_path


def test_zero_and_255_are_unlabeled_and_classes_begin_at_1(root: Path) -> None:
    values = np.zeros((24, 32), np.uint8)
    values[:2], values[2:4], values[4:6] = 1, 2, 255
    Image.fromarray(values).save(root / "annotations" / "training" / "0.png")
    target = Ade20k(root).load("train").target(0)
    expected = np.full((24, 32), IGNORE_INDEX)
    expected[:2], expected[2:4] = 0, 1
    assert np.array_equal(target.numpy(), expected)


def test_facts(root: Path) -> None:
    info = Ade20k(root).info
    assert info.class_names == ("wall", "sky")
    assert info.version.startswith("ADE20K layout, 5 + 3 + 2 images in 2 classes (")
    assert info.image_size == (24, 32)
    assert info.masks is not None
    assert info.masks.values == (1, 2)
    assert len(set(info.masks.colors)) == 2


def test_splits_are_the_published_folders(root: Path) -> None:
    source = Ade20k(root)
    assert [len(source.load(split)) for split in SPLITS] == [5, 3, 2]
    assert len(source.load_all()) == 10
    assert source.load("val").location(2) == str(root / "images/validation/2.png")


def test_published_test_images_have_no_masks(root: Path) -> None:
    for file in (root / "annotations" / "test").iterdir():
        file.unlink()
    (root / "annotations" / "test").rmdir()
    source = Ade20k(root)
    assert source.files("test") is None
    with pytest.raises(DataError, match=r"no test images with masks.*evaluate with --split val"):
        source.load("test")


def test_validation_images_are_held_out_if_there_are_none(root: Path) -> None:
    for kind in ("images", "annotations"):
        (root / kind / "validation").rename(root / kind / "old")
    source = Ade20k(root, val_size=2)
    assert (len(source.load("train")), len(source.load("val"))) == (3, 2)


def test_synonyms_stay_where_they_tell_classes_apart(root: Path) -> None:
    (root / "objectInfo150.txt").write_text("Idx\tName\n1\tscreen, crt\n2\tscreen, silver\n")
    assert Ade20k(root).info.class_names == ("screen, crt", "screen, silver")


def test_without_a_list_the_published_names_or_numbers(root: Path) -> None:
    (root / "objectInfo150.txt").unlink()
    source = Ade20k(root)
    assert source.info.class_names == ("class 1", "class 2")
    assert source.note is not None
    assert "classes are called by their values, 1 to 2" in source.note
    values = np.full((24, 32), 150, np.uint8)
    Image.fromarray(values).save(root / "annotations" / "training" / "0.png")
    info = Ade20k(root).info
    assert (len(info.class_names), info.class_names[0], info.class_names[-1]) == (
        150,
        "wall",
        "flag",
    )
    assert info.masks is not None
    assert info.masks.colors[:3] == ((120, 120, 120), (180, 120, 120), (6, 230, 230))


def test_published_colors_belong_to_published_names(root: Path) -> None:
    (root / "objectInfo150.txt").unlink()
    Image.fromarray(np.full((24, 32), 150, np.uint8)).save(root / "annotations/training/0.png")
    published = Ade20k(root).info
    lines = [f"{value}\t{name}" for value, name in enumerate(published.class_names, 1)]
    (root / "objectInfo150.txt").write_text("\n".join(["Idx\tName", *lines]))
    listed = Ade20k(root).info
    assert listed.class_names == published.class_names
    assert listed.masks == published.masks


def test_a_class_cannot_be_zero(root: Path) -> None:
    (root / "objectInfo150.txt").write_text("Idx\tName\n0\twall\n1\tsky\n")
    with pytest.raises(DataError, match="class of value 0, which is unlabeled"):
        Ade20k(root)


@pytest.mark.parametrize("folder", ["images", "annotations"])
def test_another_layout_is_refused(root: Path, folder: str) -> None:
    (root / folder).rename(root / "other")
    with pytest.raises(DataError, match=f"no folder {folder}; ADE20K's layout is"):
        Ade20k(root)


@pytest.mark.realdata
def test_street_scenes(shared_dir: Path) -> None:
    root = shared_dir / "data" / "camvid"
    source = Ade20k(root)
    info = source.info
    assert info.class_names == (
        *("sky", "building", "pole", "road", "pavement", "tree"),
        *("sign_symbol", "fence", "car", "pedestrian", "bicyclist"),
    )
    assert info.image_size == (360, 480)
    assert info.version.startswith("ADE20K layout, 367 + 101 + 233 images in 11 classes (")
    bicyclist = {"train": 0.0029, "val": 0.0222, "test": 0.0019}  # documented with the data
    for split in SPLITS:
        images = source.load(split)
        files = sorted((root / "annotations" / FOLDERS[split]).iterdir())
        stored = np.stack([np.array(Image.open(file)) for file in files])
        counts = np.bincount(stored.ravel(), minlength=12)
        assert len(images) == len(files)
        assert images.pixel_counts.tolist() == counts[1:].tolist()
        assert images.statistics.unlabeled == counts[0]
        fraction = float(images.pixel_counts[10]) / int(counts.sum())
        assert fraction == pytest.approx(bicyclist[split], abs=5e-5)
    sample = source.load("train")[0]
    assert sample.image.shape == (3, 360, 480)
    mask = np.array(Image.open(root / "annotations" / "training" / "0001TP_006690.png"))
    assert torch.equal(sample.target, torch.from_numpy(np.where(mask == 0, 255, mask - 1)))
