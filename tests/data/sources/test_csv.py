from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pacavit.data import DATASETS, CsvLabels, LabeledImages, Split
from pacavit.data.formats.files import FileImages
from pacavit.errors import DataError

ROWS = [
    ("a.png", "cat"),
    ("b.png", "dog;cat"),
    ("sub/c.png", "dog | bird"),
    ("d.png", ""),
    ("e.png", "bird"),
]


def write(folder: Path, text: str, name: str = "labels.csv") -> Path:
    folder.mkdir(exist_ok=True)
    for number, line in enumerate(text.splitlines()[1:]):
        file = folder / line.split(",")[0]
        if file.suffix == ".png":
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 10 * number % 256, np.uint8)).save(file)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def listed(folder: Path) -> Path:
    return write(folder, "image,labels\n" + "".join(f"{a},{b}\n" for a, b in ROWS))


def labels_of(source: CsvLabels, split: Split) -> Tensor:
    images = source.load(split)
    assert isinstance(images, LabeledImages)
    return images.labels


def sizes(source: CsvLabels) -> dict[str, int]:
    return {split: len(listing) for split, listing in source._listings.items()}


def test_another_label_is_another_version(tmp_path: Path) -> None:
    versions = []
    for label in ("cat", "dog"):
        write(tmp_path, f"image,labels\na.png,cat\nb.png,dog\nc.png,{label}\n")
        for name in "abc":
            Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
        versions.append(CsvLabels(tmp_path, val_size=0, test_size=0).info.version)
    assert versions[0] != versions[1]


def test_classes_in_one_column_become_rows_of_zeros_and_ones(tmp_path: Path) -> None:
    listed(tmp_path)
    source = CsvLabels(tmp_path, val_size=0, test_size=0, image_size=8, target="labels")
    assert source.info.class_names == ("bird", "cat", "dog")
    assert source.info.version.startswith("labels.csv with 5 images in 3 classes (")
    images = source.load("train")
    assert [images[i].target.tolist() for i in range(5)] == [
        [0, 1, 0],
        [0, 1, 1],
        [1, 0, 1],
        [0, 0, 0],
        [1, 0, 0],
    ]
    assert labels_of(source, "train").dtype == torch.uint8
    assert images[2].image[0, 0, 0] == 20


def test_a_column_for_each_class_means_the_same(tmp_path: Path) -> None:
    text = "bird,FileName,cat,dog\n0,a.png,1,0\n1,b.png,0,1.0\nfalse,c.png,true,1\n"
    path = tmp_path / "flags.csv"
    path.write_text(text)
    for name in "abc":
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    source = CsvLabels(path, val_size=0, test_size=0, image_size=4, target="labels")
    assert source.info.class_names == ("bird", "cat", "dog")
    assert labels_of(source, "train").tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 1]]


def test_single_labels_and_a_column_of_splits(tmp_path: Path) -> None:
    rows = [("a", "x", "train"), ("b", "y", "Train"), ("c", "y", "TEST"), ("d", "x", "valid")]
    lines = "".join(f"{name}.png,{label},{split}\n" for name, label, split in rows)
    path = write(tmp_path, "path,class,split\n" + lines)
    source = CsvLabels(path, image_size=8)
    assert labels_of(source, "train").tolist() == [0, 1]
    assert labels_of(source, "test").tolist() == [1]
    assert labels_of(source, "val").tolist() == [0]
    assert labels_of(source, "train").dtype == torch.int64


def test_images_are_held_out_by_name_and_rare_classes_first(tmp_path: Path) -> None:
    lines = [f"{i:03}.png,{'common' if i % 10 else 'common;rare'}" for i in range(100)]
    path = write(tmp_path, "image,labels\n" + "\n".join(lines) + "\n")
    first = CsvLabels(path, target="labels", image_size=8)
    sets = {split: set(listing.files) for split, listing in first._listings.items()}
    assert sum(map(len, sets.values())) == 100
    assert not sets["train"] & sets["val"]
    assert not sets["train"] & sets["test"]
    for split in ("train", "val", "test"):
        assert first._listings[split].labels[:, 1].any(), f"no rare image in {split}"
    assert sizes(CsvLabels(path, target="labels", val_size=7, test_size=9)) == {
        "train": 84,
        "val": 7,
        "test": 9,
    }
    lines.append("new.png,common")
    write(tmp_path, "image,labels\n" + "\n".join(lines) + "\n")
    again = CsvLabels(path, target="labels", image_size=8)
    assert sets["train"] <= set(again._listings["train"].files)


def test_files_are_read_when_needed(tmp_path: Path) -> None:
    listed(tmp_path)
    source = CsvLabels(
        tmp_path, val_size=0, test_size=0, image_size=4, in_memory=False, target="labels"
    )
    images = source.load("train")
    assert isinstance(images, FileImages)
    assert images[1].image.shape == (3, 8, 8)
    pixels, labels = images.batch(torch.tensor([1, 2]))
    assert pixels.shape == (2, 3, 4, 4)
    assert labels.tolist() == [[0, 1, 1], [1, 0, 1]]


def test_the_source_is_registered_for_both_kinds_of_targets() -> None:
    assert DATASETS.get("csv").targets == ("label", "labels")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'image' in its first line, which has nothing"),
        ("name,labels\na.png,x\n", "no column 'image' in its first line, which has name, labels"),
        ("image\na.png\n", "no column of labels beside 'image'"),
        ("image,labels\n", "names no images"),
        ("image,labels\na.png,x\na.png,y\n", "names 1 images more than once: a.png"),
        ("image,labels\na.png,x\nb.png,x\n", "fewer than two classes: x"),
        ("image,labels\na.png,x,y\n", "line 2: 3 cells instead of 2"),
        ("image,labels\n ,x\n", "line 2 names no image"),
        ("image,labels\na.png,x\nb.png,y;x\n", "1 images without exactly one class, the first in"),
        ("image,labels\na.png,x\nb.png,\n", r"line 3 \(b.png: none\)"),
        ("image,cat,dog\na.png,1,maybe\n", "column 'dog': 'maybe' is neither 0 nor 1"),
        ("image,labels,split\na.png,x,trian\n", "line 2: 'trian' is no split; choose among: train"),
        ("image,labels\na.png,x\nb.jpg,y\n", "1 of the 2 images in .* are not there: b.jpg"),
        ('image,labels\na.png,"x\n', "is not a CSV file in UTF-8"),
    ],
)
def test_wrong_files_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        CsvLabels(path)
    assert "\n" not in str(caught.value)


def test_missing_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a CSV file of labels is needed"):
        CsvLabels()
    with pytest.raises(DataError, match=r"there is no file of labels .*labels\.csv"):
        CsvLabels(tmp_path)
    (tmp_path / "latin.csv").write_bytes("image,labels\na.png,café\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not a CSV file in UTF-8"):
        CsvLabels(tmp_path / "latin.csv")


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "image,labels,split\na.png,x,train\nb.png,y,val\n")
    with pytest.raises(DataError, match="val_size has no effect"):
        CsvLabels(path, val_size=1)
    with pytest.raises(DataError, match="test_size has no effect"):
        CsvLabels(path, test_size=1)
    with pytest.raises(DataError, match="has no test images"):
        CsvLabels(path, image_size=8).load("test")


def test_sizes_of_the_training_data_do_not_hinder_an_evaluation(tmp_path: Path) -> None:
    text = "image,labels,split\na.png,x,train\nb.png,y,val\nc.png,x,test\nd.png,y,test\n"
    path = write(tmp_path, text)
    numbers: dict[Split, int] = {"train": 1, "val": 1, "test": 2}
    for split, number in numbers.items():
        source = CsvLabels(path, val_size=9, test_size=9, image_size=8, evaluated=split)
        assert len(labels_of(source, split)) == number
    bare = write(tmp_path, "image,labels\na.png,x\nb.png,y\nc.png,x\nd.png,y\n", "bare.csv")
    held = CsvLabels(bare, val_size=1, test_size=2, image_size=8)
    source = CsvLabels(bare, val_size=9, test_size=2, image_size=8, evaluated="test")
    assert source._listings["test"].files.tolist() == held._listings["test"].files.tolist()
    with pytest.raises(DataError, match="cannot hold out 9 of 2"):
        CsvLabels(bare, val_size=9, test_size=2, evaluated="val")
