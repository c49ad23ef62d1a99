"""Pascal VOC's layout: lists, folders of splits, difficult objects, unsafe XML."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pacavit.data import SPLITS, Voc
from pacavit.errors import DataError

OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{0}</xmin>"
    "<ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"
)


def xml(*objects: str, size: str = "<size><width>32</width><height>24</height></size>") -> str:
    return f"<annotation><filename>x.jpg</filename>{size}{''.join(objects)}</annotation>"


def box(name: str, *sides: float, difficult: int = 0) -> str:
    return OBJECT.format(*sides, name=name, difficult=difficult)


def write(annotations: Path, images: Path, num: int) -> None:
    for folder in (annotations, images):
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(num):
        Image.new("RGB", (32, 24), (number, 9, 99)).save(images / f"{number}.jpg")
        (annotations / f"{number}.xml").write_text(
            xml(box("dog", 1, 1, 8, 8), box("cat", 11, 3, 20, 24, difficult=number % 2))
        )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "Annotations", tmp_path / "JPEGImages", 12)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"{number}\n" for number in range(6)))
    (lists / "val.txt").write_text("6  1\n7 -1\n")
    (lists / "test.txt").write_text("100\n101\n")  # without annotations, as VOC 2012's
    (lists / "cat_train.txt").write_text("0  1\n")
    return tmp_path


def test_lists_of_splits_and_boxes_from_1(root: Path) -> None:
    source = Voc(root)
    assert source.info.class_names == ("cat", "dog")
    assert source.info.objects is not None
    assert source.info.objects.category_ids == (1, 2)
    assert source.info.version.startswith("VOC layout, 6 + 2 images in 2 classes (")
    images = source.load("train")
    assert len(images) == 6
    assert len(source.load("val")) == 2
    target = images[1].target
    assert target.boxes.tolist() == [[0, 0, 8, 8], [10, 2, 20, 24]]
    assert target.labels.tolist() == [1, 0]
    assert target.crowd.tolist() == [False, True]  # difficult
    assert target.areas.tolist() == [64, 220]
    with pytest.raises(DataError, match="has no test images"):
        source.load("test")
    assert Voc(root, evaluated="val", classes=("cat", "dog")).info.version == source.info.version


def test_the_folder_above(root: Path) -> None:
    inner = root / "VOCdevkit" / "VOC2012"
    write(inner / "Annotations", inner / "JPEGImages", 10)
    source = Voc(root / "VOCdevkit")
    assert len(source.load_all()) == 10  # without lists, some are held out
    assert all(source.files(split) is not None for split in SPLITS)
    write(root / "VOCdevkit" / "VOC2007", inner / "JPEGImages", 1)
    with pytest.raises(DataError, match="name one of them"):
        Voc(root / "VOCdevkit")


def test_folders_of_splits_with_annotations_beside_images(tmp_path: Path) -> None:
    for split, num in (("train", 4), ("valid", 2)):
        write(tmp_path / split, tmp_path / split, num)
    source = Voc(tmp_path)
    assert [len(source.load(split)) for split in ("train", "val")] == [4, 2]


def test_trainval_is_for_training_without_a_list_of_its_own(root: Path) -> None:
    lists = root / "ImageSets" / "Main"
    (lists / "train.txt").rename(lists / "trainval.txt")
    (lists / "val.txt").unlink()
    source = Voc(root)
    assert len(source.load("train")) + len(source.load("val")) == 6


def test_sizes_that_are_not_stated_are_those_of_the_files(root: Path) -> None:
    (root / "Annotations" / "0.xml").write_text(xml(box("dog", 1, 1, 8, 8), size=""))
    (root / "Annotations" / "1.xml").write_text(
        xml(size="<size><width>0</width><height>0</height></size>")
    )
    images = Voc(root).load("train")
    assert images.target(0).size == images.target(1).size == (24, 32)
    assert images.statistics.empty == 1


def test_some_wrong_objects_are_left_out(root: Path) -> None:
    (root / "Annotations" / "0.xml").write_text(
        xml(
            box("dog", 8, 8, 1, 1),
            "<object><name>dog</name></object>",
            "<object><name>dog</name><bndbox><xmin>nan</xmin></bndbox></object>",
            box("cat", 50, 3, 60, 9),
        )
    )
    source = Voc(root)
    assert source.load("train").statistics.objects.tolist() == [2, 5]
    assert source.note is not None
    assert "2 objects without the needed numbers (object 2 of JPEGImages/0.jpg" in source.note
    assert "1 box without an area (object 1 of JPEGImages/0.jpg" in source.note
    assert "1 box outside of its image" in source.note


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<annotation>", r"3\.xml is not XML, or only a part of it"),
        ("{}", "is not XML"),
        ("<VEDAI><object/></VEDAI>", "<VEDAI>, where Pascal VOC has <annotation>"),
        (
            '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>',
            "document type",
        ),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "document type"),
        ("<annotation>&lol;</annotation>", "is not XML"),
    ],
)
def test_files_that_are_refused(root: Path, text: str, words: str) -> None:
    (root / "Annotations" / "3.xml").write_text(text)
    with pytest.raises(DataError, match=words):
        Voc(root)


def test_unmatched_files(root: Path) -> None:
    (root / "Annotations" / "3.xml").unlink()
    with pytest.raises(DataError, match=r"1 listed image has no annotation file: 3 \(train\)"):
        Voc(root)
    (root / "JPEGImages" / "4.jpg").unlink()
    source = Voc(root, mismatched="skip")
    assert len(source.load("train")) == 4
    assert source.note is not None
    assert "1 listed image has no annotation file" in source.note
    assert "1 image file is missing" in source.note


def test_lists_that_contradict_each_other(root: Path) -> None:
    lists = root / "ImageSets" / "Main"
    (lists / "val.txt").write_text("6\n0\n")
    with pytest.raises(DataError, match="lists 0 for train and for val"):
        Voc(root)
    (lists / "val.txt").write_text("../../../etc/passwd\n")
    with pytest.raises(DataError, match="no name of an image"):
        Voc(root)


def test_classes_of_a_model_and_ignored_ones(root: Path) -> None:
    source = Voc(root, classes=("dog", "cow", "cat"), evaluated="val")
    assert source.load("val").target(0).labels.tolist() == [0, 2]
    with pytest.raises(DataError, match="the model does not know: dog"):
        Voc(root, classes=("cat",))
    assert Voc(root, ignore=("dog",)).info.class_names == ("cat",)
