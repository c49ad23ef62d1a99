"""Folders of a user's own images and masks: layouts, classes, splits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pacavit.data import SPLITS, Masks, Split
from pacavit.errors import DataError, UnknownNameError

WritePairs = Callable[..., None]
RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def root(tmp_path: Path, write_pairs: WritePairs) -> Path:
    write_pairs(tmp_path / "images", tmp_path / "masks", 20)
    return tmp_path


def files(source: Masks, split: Split) -> set[bytes]:
    images = source.files(split)
    return set() if images is None else set(images.pairs.files.tolist())


def save_all(folder: Path, image: Image.Image) -> None:
    for file in folder.iterdir():
        image.save(file)


def test_images_are_held_out_by_their_names(root: Path, write_pairs: WritePairs) -> None:
    source = Masks(root)
    splits = [files(source, split) for split in SPLITS]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 20
    assert all(splits)
    write_pairs(root / "images", root / "masks", 30)
    more = Masks(root)
    assert all(old <= files(more, split) for split, old in zip(SPLITS, splits, strict=True))
    sizes = Masks(root, val_size=4, test_size=6)
    assert [len(files(sizes, split)) for split in SPLITS] == [20, 4, 6]


@pytest.mark.parametrize(
    ("images", "masks"),
    [("images/{}", "masks/{}"), ("{}/images", "{}/labels"), ("Images/{}", "Annotations/{}")],
)
def test_layouts_with_folders_of_splits(
    tmp_path: Path, write_pairs: WritePairs, images: str, masks: str
) -> None:
    for split, num in (("train", 4), ("val", 2), ("test", 3)):
        write_pairs(tmp_path / images.format(split), tmp_path / masks.format(split), num)
    source = Masks(tmp_path)
    assert [len(files(source, split)) for split in SPLITS] == [4, 2, 3]
    assert len(source.load_all()) == 9
    with pytest.raises(DataError, match="val_size has no effect"):
        Masks(tmp_path, val_size=1)


def test_without_validation_folder_some_are_held_out_and_none_to_test(
    tmp_path: Path, write_pairs: WritePairs
) -> None:
    write_pairs(tmp_path / "train" / "images", tmp_path / "train" / "masks", 8)
    write_pairs(tmp_path / "test" / "images", tmp_path / "test" / "masks", 2)
    for file in (tmp_path / "test" / "masks").iterdir():
        file.unlink()
    (tmp_path / "test" / "masks").rmdir()
    source = Masks(tmp_path)
    assert len(files(source, "train")) + len(files(source, "val")) == 8
    with pytest.raises(DataError, match="has no test images with masks"):
        source.load("test")


@pytest.mark.parametrize(
    ("name", "text", "names", "values"),
    [
        ("classes.txt", "bg\ncat\ndog", ("bg", "cat", "dog"), (0, 1, 2)),
        ("Classes.txt", "2 dog\n0 bg\n1 cat", ("dog", "bg", "cat"), (2, 0, 1)),
        ("labels.json", json.dumps({"0": "bg", "1": "cat", "2": "dog"}), None, (0, 1, 2)),
        ("palette.csv", "id,name,r,g,b\n0,bg,0,0,0\n1,cat,9,0,0\n2,dog,0,9,0", None, (0, 1, 2)),
    ],
)
def test_lists_of_classes(
    root: Path, name: str, text: str, names: tuple[str, ...] | None, values: tuple[int, ...]
) -> None:
    (root / name).write_text(text)
    source = Masks(root)
    names = ("bg", "cat", "dog") if names is None else names
    assert source.info.class_names == names
    assert source.info.masks is not None
    assert source.info.masks.values == values
    assert source.note is None
    mask = np.array(Image.open(root / "masks" / source.load("train").file(0).name))
    target = source.load("train").target(0).numpy()
    assert np.array_equal(np.array(values)[target], mask)


def test_masks_in_color(root: Path) -> None:
    (root / "classes.txt").write_text("cat 255 0 0\ndog 0 0 255\nvoid 0 0 0\n")
    pixels = np.zeros((24, 32, 3), np.uint8)
    pixels[:9], pixels[9:12] = RED, BLUE
    save_all(root / "masks", Image.fromarray(pixels))
    source = Masks(root, ignore=("void",))
    assert source.info.class_names == ("cat", "dog")
    assert source.info.masks is not None
    assert source.info.masks.colors == (RED, BLUE)
    assert source.load("train").target(0)[[0, 9, 12], 0].tolist() == [0, 1, 255]
    by_color = Masks(root, ignore=("#000000",))
    assert by_color.info.class_names == ("cat", "dog")


def test_without_a_list_values_are_classes(root: Path) -> None:
    source = Masks(root)
    assert source.info.class_names == ("class 0", "class 1", "class 2")
    assert source.note is not None
    assert "its 3 classes are called by their values (0, 1, 2)" in source.note
    ignoring = Masks(root, ignore=(0,))
    assert ignoring.info.class_names == ("class 1", "class 2")
    assert ignoring.info.masks is not None
    assert ignoring.info.masks.values == (1, 2)


def test_colors_of_the_masks_own_palette(root: Path) -> None:
    palette = Image.new("P", (32, 24))
    palette.putpalette([0, 0, 0, *RED, *BLUE])
    palette.putdata([number % 3 for number in range(24 * 32)])
    save_all(root / "masks", palette)
    info = Masks(root).info
    assert info.masks is not None
    assert info.masks.colors == ((0, 0, 0), RED, BLUE)


@pytest.mark.parametrize(
    ("options", "values"),
    [({}, (0, 255)), ({"classes": ("bg", "cat"), "values": (0, 255)}, (0, 255))],
)
def test_a_listed_class_may_have_the_value_255(
    root: Path, options: dict[str, Any], values: tuple[int, ...]
) -> None:
    if not options:
        (root / "classes.txt").write_text("0 bg\n255 cat\n")
    save_all(
        root / "masks", Image.fromarray(np.repeat([[0, 255]], 24, 0).repeat(16, 1).astype(np.uint8))
    )
    source = Masks(root, **options)
    assert source.info.masks is not None
    assert source.info.masks.values == values
    assert source.load("train").target(0)[0, [0, 31]].tolist() == [0, 1]


def test_a_models_classes_keep_their_order_and_values(root: Path) -> None:
    model = Masks(root, classes=("dog", "cat", "bg"), values=(2, 1, 0))
    assert model.info.masks is not None
    assert model.info.masks.values == (2, 1, 0)
    (root / "classes.txt").write_text("0 bg\n1 cat\n2 dog\n")
    listed = Masks(root, classes=("dog", "cat", "bg"), values=(7, 8, 9))
    assert listed.info.class_names == ("dog", "cat", "bg")
    assert listed.info.masks is not None
    assert listed.info.masks.values == (2, 1, 0)
    with pytest.raises(DataError, match="classes that the model does not know: dog; known"):
        Masks(root, classes=("cat", "bg"))
    with pytest.raises(DataError, match="does not list the classes cow"):
        Masks(root, classes=("dog", "cat", "bg", "cow"))


def test_the_version_depends_on_files_and_classes(root: Path, write_pairs: WritePairs) -> None:
    versions = [Masks(root).info.version]
    (root / "classes.txt").write_text("a\nb\nc\n")
    versions.append(Masks(root).info.version)
    write_pairs(root / "images", root / "masks", 21)
    versions.append(Masks(root).info.version)
    assert len(set(versions)) == 3
    assert versions[0].startswith("folder of masks, ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": ("a", "a")}, "has the name 'a' more than once"),
        ({"classes": ("a", "b"), "values": (1,)}, "values has 1 numbers for 2 classes"),
        ({"ignore": (1, 2)}, r"1 class of pixels \(class 0\)"),
    ],
)
def test_options_that_contradict(root: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        Masks(root, **options)


def test_an_ignored_class_must_exist(root: Path) -> None:
    (root / "classes.txt").write_text("sky\nroad\nvoid\n")
    with pytest.raises(UnknownNameError, match=r"unknown class 'viod' in data\.options\.ignore"):
        Masks(root, ignore=("viod",))
