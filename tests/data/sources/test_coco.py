"""COCO's layout: tiny copies in every spelling, and the real nuclei and blood cells."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pacavit.data import SPLITS, Coco, ObjectFiles, Split
from pacavit.errors import DataError

WriteCoco = Callable[..., dict[str, Any]]
Content = dict[str, Any]


@pytest.fixture
def root(tmp_path: Path, write_coco: WriteCoco) -> Path:
    """Two classes, numbered 3 and 7, in 4 + 2 + 3 images with a square and a wedge each."""
    for split, num in (("train", 4), ("val", 2), ("test", 3)):
        write_coco(tmp_path, split, num)
    return tmp_path


def change(root: Path, edit: Callable[[Content], object], split: str = "train") -> None:
    path = root / "annotations" / f"instances_{split}2017.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def sizes(source: Coco) -> list[int]:
    return [0 if (files := source.files(split)) is None else len(files) for split in SPLITS]


def test_facts(root: Path) -> None:
    info = Coco(root).info
    assert info.class_names == ("square", "wedge")  # in the order of their ids
    assert info.objects is not None
    assert info.objects.category_ids == (3, 7)
    assert len(set(info.objects.colors)) == 2
    assert info.image_size == (24, 32)
    assert info.version.startswith("COCO layout, train + val + test, 2 classes (")
    assert Coco(root, evaluated="val", classes=info.class_names).info == info
    change(root, lambda content: content["annotations"].pop())
    assert Coco(root).info.version != info.version


def test_images_and_objects(root: Path) -> None:
    source = Coco(root, target="instances")
    images = source.load("val")
    assert isinstance(images, ObjectFiles)
    assert images.in_files
    sample = images[1]
    with Image.open(root / "val2017" / "val_2.png") as stored:
        assert sample.image.shape == (3, *stored.size[::-1])
    target = sample.target
    assert target.boxes.tolist() == [[2, 2, 10, 10], [12, 4, 28, 20]]
    assert target.labels.tolist() == [0, 1]
    assert target.areas.tolist() == [64, 128]
    assert not target.crowd.any()
    assert (target.size, target.image_id) == ((24, 32), 2)
    square = torch.zeros(24, 32, dtype=torch.bool)
    square[2:10, 2:10] = True
    assert torch.equal(target.masks[0].decode(), square)
    assert Coco(root).load("val")[1].target.masks is None
    assert images.statistics.objects.tolist() == images.statistics.images.tolist() == [2, 2]
    assert images.file(1) == Path("val2017/val_2.png")
    assert images.blank(0).target.masks == ()


def test_crowds_and_images_without_objects(root: Path) -> None:
    def edit(content: Content) -> None:
        content["annotations"][0]["iscrowd"] = 1
        content["annotations"][0]["segmentation"] = {"size": [24, 32], "counts": [760, 8]}
        content["annotations"] = content["annotations"][:2]

    change(root, edit)
    images = Coco(root, target="instances").load("train")
    counts = images.statistics
    assert (counts.objects.tolist(), counts.crowds, counts.empty) == ([0, 1], 1, 3)
    assert images.target(0).crowd.tolist() == [True, False]
    masks = images.target(0).masks
    assert masks is not None
    assert masks[0].area == 8
    assert len(images.target(3)) == 0


def test_missing_areas_and_boxes_are_those_of_masks(root: Path) -> None:
    def edit(content: Content) -> None:
        for entry in content["annotations"]:
            del entry["area"]
        del content["annotations"][0]["bbox"]
        content["annotations"][2]["segmentation"] = []

    change(root, edit)
    images = Coco(root).load("train")
    assert images.target(0).boxes.tolist() == [[2, 2, 10, 10], [12, 4, 28, 20]]
    first, wedge = images.target(0).areas.tolist()
    assert first == 64
    assert 110 < wedge < 140
    assert images.target(1).areas.tolist() == [64, wedge]  # of the box, of the mask


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("annotations/train.json", "train"),
        ("annotations/instances_train2014.json", "images/train2014"),
        ("Annotations/instances_Train.json", "images/Train"),
        ("annotations/train_annotations.json", "images"),
        ("train/_annotations.coco.json", "train"),
        ("train/labels.json", "train/data"),
        ("instances_train.json", "train/images"),
        ("annotations/instances_default.json", "images"),
        ("annotations.json", "."),
    ],
)
def test_other_spellings(
    tmp_path: Path, write_coco: WriteCoco, annotations: str, images: str
) -> None:
    write_coco(tmp_path / "source", "train", 20)
    root = tmp_path / "root"
    (root / annotations).parent.mkdir(parents=True, exist_ok=True)
    (root / images).parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(tmp_path / "source" / "train2017", root / images, dirs_exist_ok=True)
    written = tmp_path / "source" / "annotations" / "instances_train2017.json"
    written.rename(root / annotations)
    train, val, test = sizes(Coco(root))
    assert train + val + test == 20
    assert val > 0
    assert (test > 0) == ("train" not in annotations.lower())


def test_files_of_other_tasks_are_passed_over(root: Path) -> None:
    for name in ("captions_train2017", "person_keypoints_val2017", "image_info_test2017"):
        (root / "annotations" / f"{name}.json").write_text("{}")
    assert sizes(Coco(root)) == [4, 2, 3]
    (root / "annotations" / "train_old.json").write_text("{}")
    assert sizes(Coco(root)) == [4, 2, 3]  # "instances" is preferred
    (root / "annotations" / "instances_train2014.json").write_text("{}")
    with pytest.raises(DataError, match=r"2 annotation files for train .*data\.options\.splits"):
        Coco(root)


def test_files_by_option(root: Path) -> None:
    splits: dict[Split, tuple[str, str]] = {
        "train": ("annotations/instances_val2017.json", "val2017"),
        "val": ("annotations/instances_test2017.json", "test2017"),
    }
    assert sizes(Coco(root, splits=splits)) == [2, 3, 0]
    with pytest.raises(DataError, match="no annotation file"):
        Coco(root, splits={"train": ("annotations/other.json", "val2017")})
    with pytest.raises(DataError, match="no folder"):
        Coco(root, splits={"train": ("annotations/instances_val2017.json", "other")})


def test_validation_images_are_held_out_if_there_is_no_file_of_them(root: Path) -> None:
    (root / "annotations" / "instances_val2017.json").unlink()
    source = Coco(root, val_size=1)
    assert sizes(source) == [3, 1, 3]
    assert len(source.load("train")) == 3
    assert Coco(root, evaluated="val", val_size=1).load("val").file(0) == source.load("val").file(0)
    with pytest.raises(DataError, match="test_size has no effect"):
        Coco(root, test_size=1)
    (root / "annotations" / "instances_test2017.json").unlink()
    with pytest.raises(DataError, match="has no test images with annotations"):
        Coco(root).load("test")
    (root / "annotations" / "instances_train2017.json").rename(
        root / "annotations" / "instances_val2017.json"
    )
    shutil.copytree(root / "train2017", root / "val2017", dirs_exist_ok=True)
    with pytest.raises(DataError, match="has no test images with annotations"):
        Coco(root, evaluated="test").load("test")


def test_all_images_have_numbers_of_their_own(root: Path) -> None:
    images = Coco(root).load_all()
    assert len(images) == 9
    assert [images.target(index).image_id for index in range(9)] == list(range(1, 10))


def test_classes_of_a_model_are_matched_by_name(root: Path) -> None:
    names = ("wedge", "disc", "square")
    source = Coco(root, classes=names, category_ids=(1, 7, 3), evaluated="val")
    assert source.info.class_names == names
    assert source.info.objects is not None
    assert source.info.objects.category_ids == (7, 8, 3)  # 7 is the wedge's in this file
    assert source.load("val").target(0).labels.tolist() == [2, 0]
    with pytest.raises(DataError, match="classes that the model does not know: wedge"):
        Coco(root, classes=("square",))
    ignoring = Coco(root, classes=("square",), ignore=("wedge",)).load("val")
    assert ignoring.statistics.objects.tolist() == [2]
    # A class that no object has, as some tools write for a group of classes.
    change(root, lambda content: content["categories"].append({"id": 0, "name": "shapes"}), "val")
    assert Coco(root, classes=("square", "wedge"), evaluated="val").load("val")


def test_ids_from_zero(root: Path) -> None:
    for split in SPLITS:

        def edit(content: Content) -> None:
            content["categories"] = [{"id": 0, "name": "square"}, {"id": 1, "name": "wedge"}]
            for entry in content["annotations"]:
                entry["category_id"] = int(entry["category_id"] == 7)

        change(root, edit, split)
    source = Coco(root)
    assert source.info.objects is not None
    assert source.info.objects.category_ids == (0, 1)
    assert source.load("train").target(0).labels.tolist() == [0, 1]


def test_some_wrong_objects_are_left_out_and_reported(root: Path) -> None:
    def edit(content: Content) -> None:
        wrong = content["annotations"]
        wrong[0]["bbox"] = [3, 3, 0, 5]
        wrong[1]["image_id"] = 99
        wrong[2]["category_id"] = 99
        wrong[3]["bbox"] = [20, 4, 16, 16]  # cut
        wrong[4]["id"] = wrong[5]["id"]

    change(root, edit)
    source = Coco(root)
    assert source.load("train").statistics.objects.tolist() == [2, 3]
    assert source.note is not None
    left_out, to_check = source.note.splitlines()
    assert left_out.startswith("left out, of 8 train objects: 1 object of an image that is not")
    assert "object 2: image_id 99" in left_out
    assert "object 3 of train_2.png: category_id 99" in left_out
    assert "object 1 of train2017/train_1.png: corners 3, 3, 3, 8 in 32 x 24 pixels" in left_out
    assert to_check.startswith("to check, of 8 train objects: 1 box that reaches beyond its image")
    assert "object 6" in to_check


def test_images_without_a_usable_file_are_refused_or_left_out(root: Path) -> None:
    (root / "train2017" / "train_1.png").rename(root / "train2017" / "Train_1.PNG")
    Image.new("RGB", (24, 32)).save(root / "train2017" / "train_2.png")
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (32, 24)).save(root / "train2017" / "train_3.png", exif=exif)
    with pytest.raises(DataError) as caught:
        Coco(root).load("train")
    text = str(caught.value)
    assert "1 image file is missing (train2017/train_1.png: its name on the disk is " in text
    assert "2 images have the size that their annotations state only without their EXIF" in text
    assert "train_3.png: 24 x 32 pixels, stated 32 x 24" in text
    assert "data.options.mismatched=skip" in text
    source = Coco(root, mismatched="skip")
    images = source.load("train")
    assert [images.target(index).image_id for index in range(len(images))] == [4]
    assert source.note is not None
    assert "left out, of 4 train images: 1 image file is missing" in source.note


def test_broken_images_are_left_to_the_loader(root: Path) -> None:
    (root / "train2017" / "train_1.png").write_text("not an image")
    images = Coco(root).load("train")
    assert len(images) == 4
    with pytest.raises(DataError, match=r"train_1\.png is not an image"):
        images[0]


def test_unlisted_images_are_noted(root: Path) -> None:
    Image.new("RGB", (8, 8)).save(root / "train2017" / "more.png")
    note = Coco(root).note
    assert note is not None
    assert "1 image is in" in note
    assert "more.png" in note


def test_sizes_that_are_not_stated_are_those_of_the_files(root: Path) -> None:
    def edit(content: Content) -> None:
        for image in content["images"]:
            del image["width"], image["height"]

    change(root, edit)
    assert Coco(root).load("train").target(0).size == (24, 32)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "targets", "images", "objects"),
    [
        ("nuclei", ("boxes", "instances"), (240, 60, 60), (7399, 1854, 2250)),
        ("bccd", ("boxes",), (205, 87, 72), (2804, 1137, 945)),
    ],
)
def test_real_images(
    shared_dir: Path,
    name: str,
    targets: tuple[Any, ...],
    images: tuple[int, ...],
    objects: tuple[int, ...],
) -> None:
    for target in targets:
        source = Coco(shared_dir / "data" / name, target=target)
        loaded = [source.load(split) for split in SPLITS]
        assert tuple(map(len, loaded)) == images
        assert tuple(int(each.statistics.objects.sum()) for each in loaded) == objects
        assert source.note is None
        assert [each.statistics.crowds for each in loaded] == [0, 0, 0]
        if target == "instances":
            every = (loaded[2].target(index) for index in range(60))
            for each in every:
                assert each.masks is not None
                assert [mask.area for mask in each.masks] == each.areas.tolist()


@pytest.mark.realdata
def test_boxes_alone_are_refused_for_instances(shared_dir: Path) -> None:
    with pytest.raises(DataError, match=r"has boxes and no masks .* choose a recipe of detection"):
        Coco(shared_dir / "data" / "bccd", target="instances")
