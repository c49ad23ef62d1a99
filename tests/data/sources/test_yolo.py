"""YOLO's layout: folders, names of classes, boxes and outlines."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pacavit.data import SPLITS, Yolo
from pacavit.errors import DataError, UnknownNameError

SQUARE = "0 0.25 0.5 0.125 0.25"  # pixels 6..10 and 9..15 of 32 x 24
OUTLINE = "1 0.5 0.25 0.75 0.25 0.75 0.75 0.5 0.75"  # 16..24 and 6..18


def write(images: Path, labels: Path, num: int, text: str = f"{SQUARE}\n{OUTLINE}\n") -> None:
    for folder in (images, labels):
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(num):
        Image.new("RGB", (32, 24), (number, 9, 99)).save(images / f"{number}.jpg")
        (labels / f"{number}.txt").write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, num in (("train", 4), ("val", 2), ("test", 3)):
        write(tmp_path / "images" / split, tmp_path / "labels" / split, num)
    (tmp_path / "data.yaml").write_text("names: [square, wedge]\nnc: 2\n")
    return tmp_path


def test_boxes(root: Path) -> None:
    source = Yolo(root)
    assert source.info.class_names == ("square", "wedge")
    assert source.info.objects is not None
    assert source.info.objects.category_ids == (0, 1)
    assert source.info.version.startswith("YOLO layout, 4 + 2 + 3 images in 2 classes (")
    target = source.load("train")[2].target
    assert target.boxes.tolist() == [[6, 9, 10, 15], [16, 6, 24, 18]]
    assert target.labels.tolist() == [0, 1]
    assert target.areas.tolist() == [24, 96]
    assert (target.size, target.image_id, target.masks) == ((24, 32), 3, None)
    assert Yolo(root, evaluated="test", classes=("square", "wedge")).info == source.info


def test_outlines_are_masks_and_boxes_are_left_out(root: Path) -> None:
    source = Yolo(root, target="instances")
    target = source.load("train")[0].target
    assert target.labels.tolist() == [1]
    mask = target.masks[0].decode()
    assert mask[6:18, 16:24].all()
    assert int(mask.sum()) == 96
    assert source.note is not None
    assert "4 objects without a mask" in source.note
    write(root / "images" / "train", root / "labels" / "train", 4, SQUARE)
    with pytest.raises(DataError, match=r"4 objects without a mask .* are for detection"):
        Yolo(root, target="instances")


@pytest.mark.parametrize(
    ("images", "labels", "text"),
    [
        ("{}/images", "{}/labels", "train: ../train/images\nval: ../valid/images\nnames: [a, b]"),
        ("{}/images", "{}/labels", "train: train/images\nnames: {0: a, 1: b}"),
        ("{}", "{}", "names: ['a', b]"),
        ("images/{}2017", "labels/{}2017", "path: /datasets/x\ntrain: no\nnames: [a, b]"),
        ("Images/{}", "Labels/{}", "names: [a, b]"),
    ],
)
def test_layouts(tmp_path: Path, images: str, labels: str, text: str) -> None:
    write(tmp_path / images.format("train"), tmp_path / labels.format("train"), 8)
    (tmp_path / "data.yaml").write_text(text)
    source = Yolo(tmp_path, val_size=2)
    assert source.info.class_names == ("a", "b")
    train, val = (source.load(split) for split in ("train", "val"))
    assert (len(train), len(val)) == (6, 2)
    assert train.statistics.objects.tolist() == [6, 6]


def test_without_splits_images_are_held_out(tmp_path: Path) -> None:
    write(tmp_path / "images", tmp_path / "labels", 20)
    (tmp_path / "classes.txt").write_text("square\nwedge\n")
    source = Yolo(tmp_path)
    assert sum(len(source.load(split)) for split in SPLITS) == 20


def test_images_without_labels_show_no_object(root: Path) -> None:
    (root / "labels" / "train" / "1.txt").unlink()
    (root / "labels" / "train" / "2.txt").write_text("")
    (root / "labels" / "train" / "more.txt").write_text(SQUARE)
    source = Yolo(root)
    assert source.load("train").statistics.empty == 2
    assert source.note == "1 train label file has no image: more.txt"
    for number in range(4):
        (root / "labels" / "train" / f"{number}.txt").unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"none of the 4 images .* has a label file"):
        Yolo(root)


def test_some_wrong_lines_are_left_out(root: Path) -> None:
    wrong = ("0 0.5 0.5 0.1", "0 a b c d", "0 0.5 0.5 0 0.1", "5 0.5 0.5 0.1 0.1", "0 2 2 0.1 0.1")
    (root / "labels" / "train" / "0.txt").write_text("\n".join([*wrong, SQUARE]))
    write(root / "images" / "train", root / "labels" / "train", 0)
    source = Yolo(root)
    assert source.load("train").statistics.objects.tolist() == [4, 3]
    assert source.note is not None
    assert "2 objects without the needed numbers (line 1 of images/train/0.jpg" in source.note
    assert "1 object of a class that is not listed (line 4 of images/train/0.jpg" in source.note
    assert "1 box without an area" in source.note
    assert "1 box outside of its image" in source.note


@pytest.mark.parametrize("line", ["0 8 12 4 6", "0 1 0.2 0.3 0.1 0.2", "3 0.5 0.5 0.1 0.1"])
def test_most_lines_wrong(root: Path, line: str) -> None:
    write(root / "images" / "val", root / "labels" / "val", 2, f"{line}\n{line}x\n{SQUARE}\n")
    with pytest.raises(DataError, match="more than half of the 6 objects are wrong"):
        Yolo(root)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: [a, b", "is not YAML"),
        ("- a\n- b", 'no list "names"'),
        ("names: []", 'no list "names"'),
        ("names: [a, a]", "'a' more than once"),
        ("names: {1: a, 2: b}", "have to be 0, 1, 2"),
        ("names: [a, [b]]", "no text"),
        ("nc: 3\nnames: [a, b]", "nc = 3 and 2 names"),
        ("a: &a [x, x]\nnames: [*a, *a]", "aliases"),
        ("names: !!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_descriptions_that_are_refused(root: Path, text: str, words: str) -> None:
    (root / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=words):
        Yolo(root)


def test_names_of_classes_are_needed_once(root: Path) -> None:
    (root / "data.yaml").rename(root / "a.yaml")
    assert Yolo(root).info.class_names == ("square", "wedge")
    (root / "b.yml").write_text("names: [a, b]")
    with pytest.raises(DataError, match="2 lists of classes"):
        Yolo(root)
    (root / "a.yaml").unlink()
    (root / "b.yml").unlink()
    with pytest.raises(DataError, match=r"no data\.yaml or classes\.txt"):
        Yolo(root)


def test_classes_of_a_model_and_ignored_ones(root: Path) -> None:
    source = Yolo(root, classes=("wedge", "disc", "square"), evaluated="val")
    assert source.load("val").target(0).labels.tolist() == [2, 0]
    with pytest.raises(DataError, match="the model does not know: wedge"):
        Yolo(root, classes=("square",))
    ignoring = Yolo(root, ignore=("square",))
    assert ignoring.info.class_names == ("wedge",)
    assert ignoring.load("val").statistics.objects.tolist() == [2]
    with pytest.raises(UnknownNameError, match="'squares'"):
        Yolo(root, ignore=("squares",))
