"""Annotations, images and classes of objects that do not suit: one clear line, exit code 2."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pacavit import recipes
from pacavit.data import Coco
from pacavit.engine import build
from pacavit.engine.weights.format import save_weights
from pacavit_cli.main import main

WriteCoco = Callable[..., dict[str, Any]]
Change = Callable[[Path], object]
"""Changes a folder in COCO's layout with 4 + 2 + 2 images and the classes square and wedge."""

RECIPE = """
name = "objects"
description = "a narrow network and a light detector"
[task]
name = "detection"
detector = "fcos"
detector_options = { channels = 64 }
image_size = 32
[data]
name = "coco"
[model]
name = "pacavit_nano"
options = { embed_dims = [24, 32, 48], num_heads = [2, 2, 2], stem_dims = [8, 24] }
[train]
epochs = 1
seed = 0
batch_size = 2
lr = 1e-3
eval_batch_size = 2
"""
TRAIN = "train {root}/objects.toml --out {root}/new --data {root}/data"
INSTANCES = TRAIN + " --set task.name=instance_segmentation --set task.detector=mask_rcnn "
INSTANCES += "--set task.detector_options={{}}"
VOC = TRAIN + " --set data.name=voc"
YOLO = TRAIN + " --set data.name=yolo"
EVALUATE = "evaluate {root}/weights.safetensors --data {root}/data"
PREDICTIONS = [{"image_id": 1, "category_id": 3, "bbox": [1, 1, 2, 2], "score": 0.5}]


def annotation_file(root: Path, split: str = "train") -> Path:
    return root / "annotations" / f"instances_{split}2017.json"


def nothing(root: Path) -> None:
    """A folder without faults."""


def text(content: str | bytes, split: str = "train") -> Change:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda root: annotation_file(root, split).write_bytes(data)


def edit(change: Callable[[dict[str, Any]], object], split: str = "train") -> Change:
    def apply(root: Path) -> None:
        content = json.loads(annotation_file(root, split).read_text())
        change(content)
        annotation_file(root, split).write_text(json.dumps(content))

    return apply


def each(split: str = "train", **fields: Any) -> Change:
    """Set fields of all annotations of a split."""
    return edit(lambda content: [entry.update(fields) for entry in content["annotations"]], split)


def first(kind: str, **fields: Any) -> Change:
    """Set fields of the first image, annotation or category."""
    return edit(lambda content: content[kind][0].update(fields))


def truncated(root: Path) -> None:
    path = annotation_file(root)
    path.write_bytes(path.read_bytes()[:-100])


def renamed(root: Path) -> None:
    for file in (root / "train2017").iterdir():
        file.rename(file.with_name(file.name.upper()))


def resized(root: Path) -> None:
    for file in (root / "train2017").iterdir():
        Image.new("RGB", (16, 12)).save(file)


def turned(root: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (32, 24)).save(root / "train2017" / "train_1.png", exif=exif)


def pairs(content: dict[str, Any]) -> None:
    """Boxes as corners, as another format has them."""
    for entry in content["annotations"]:
        entry["bbox"] = [20, 12, 30, 22]


def as_yolo(label: str, description: str = "names: [square, wedge]") -> Change:
    def change(root: Path) -> None:
        for split in ("train", "val"):
            shutil.copytree(root / f"{split}2017", root / "images" / split)
            labels = root / "labels" / split
            labels.mkdir(parents=True)
            for image in (root / "images" / split).iterdir():
                (labels / image.name).with_suffix(".txt").write_text(label)
        if description:
            (root / "data.yaml").write_text(description)

    return change


def as_voc(content: str) -> Change:
    def change(root: Path) -> None:
        shutil.rmtree(root / "annotations")
        shutil.copytree(root / "train2017", root / "JPEGImages")
        (root / "Annotations").mkdir()
        for image in (root / "JPEGImages").iterdir():
            (root / "Annotations" / image.name).with_suffix(".xml").write_text(content)

    return change


ROWS: list[tuple[str, str, Change, list[str]]] = [
    # what is wrong, the words, the change, what the line must name
    ("no folder named", TRAIN.split(" --data")[0], nothing, ["--data ROOT", "instances_train2017"]),
    ("no such folder", TRAIN + "_old", nothing, ["no data folder", "data_old"]),
    (
        "no annotations",
        TRAIN,
        lambda root: shutil.rmtree(root / "annotations"),
        ["no annotation files of COCO", "data.options.splits"],
    ),
    ("not JSON", TRAIN, text("hello"), ["instances_train2017.json", "not JSON"]),
    ("truncated", TRAIN, truncated, ["not JSON, or only a part"]),
    ("not text", TRAIN, text(b"\xff\xfe\xff"), ["not a text in UTF-8"]),
    ("a list", TRAIN, text("[1]"), ["is a list", "images, annotations, categories"]),
    ("predictions", TRAIN, text(json.dumps(PREDICTIONS)), ["a list of predictions"]),
    ("a number", TRAIN, text("1"), ["a JSON int, no annotations"]),
    ("nested", TRAIN, text("[" * 100_000), ["nested deeper"]),
    ("huge number", TRAIN, text("9" * 5000), ["more than 64 bits"]),
    (
        "LabelMe",
        TRAIN,
        text('{"shapes": [], "imagePath": "a.png"}'),
        ["LabelMe", "export", "COCO's format"],
    ),
    ("GeoJSON", TRAIN, text('{"type": "FeatureCollection", "features": []}'), ["GeoJSON"]),
    (
        "captions",
        TRAIN,
        text('{"images": [], "annotations": []}'),
        ["no list categories", "it has images; annotations"],
    ),
    ("no images", TRAIN, edit(lambda content: content["images"].clear()), ["lists no images"]),
    ("no categories", TRAIN, edit(lambda c: c["categories"].clear()), ["0 categories"]),
    (
        "category id twice",
        TRAIN,
        first("categories", id=3),
        ["two categories with the id 3, 'wedge' and 'square'"],
    ),
    (
        "category name twice",
        TRAIN,
        first("categories", name="square"),
        ["two categories with the name 'square'"],
    ),
    ("category as text", TRAIN, first("categories", id="3"), ["category 0", '"id"', '"name"']),
    (
        "other categories in another split",
        TRAIN,
        edit(lambda content: content["categories"][0].update(name="disc"), "val"),
        ["calls the category 7 'disc'", "'wedge'"],
    ),
    (
        "other ids in another split",
        TRAIN,
        edit(lambda content: content["categories"][0].update(id=9), "val"),
        ["different ids for the category 'wedge'"],
    ),
    ("image id twice", TRAIN, first("images", id=2), ["two images with the id 2", "train_1.png"]),
    ("image id as text", TRAIN, first("images", id="a"), ["image 0", '"id"', '"file_name"']),
    (
        "file name twice",
        TRAIN,
        first("images", file_name="train_2.png"),
        ["lists train_2.png twice, as the images 1 and 2"],
    ),
    (
        "file name outside",
        TRAIN,
        first("images", file_name="../../etc/passwd"),
        ["'../../etc/passwd' of image 1 leads out"],
    ),
    (
        "absolute file name",
        TRAIN,
        first("images", file_name="/etc/passwd"),
        ["'/etc/passwd' of image 1 leads out"],
    ),
    ("empty file name", TRAIN, first("images", file_name=""), ["file_name '' of image 1"]),
    ("huge image", TRAIN, first("images", width=10**9), ["1000000000 x 24", "max_pixels"]),
    ("negative width", TRAIN, first("images", width=-32), ["the width -32", "above 0"]),
    ("infinite width", TRAIN, first("images", width=float("inf")), ["the width inf", "above 0"]),
    (
        "image missing",
        TRAIN,
        lambda root: (root / "train2017" / "train_1.png").unlink(),
        ["1 image file is missing (train2017/train_1.png)", "mismatched=skip"],
    ),
    (
        "text as an option of a detector",
        TRAIN + " --set task.detector_options.channels=many",
        nothing,
        ["task.detector_options.channels = 'many': expected a valid integer"],
    ),
    (
        "too few values",
        TRAIN + " --set task.detector=faster_rcnn --set task.detector_options.proposals=[9]",
        nothing,
        ["task.detector_options.proposals = [9]: expected more values"],
    ),
    (
        "all images missing",
        TRAIN,
        lambda root: shutil.rmtree(root / "train2017"),
        ["images that", "are missing: there is no train_1.png"],
    ),
    ("upper case", TRAIN, renamed, ["there is no train_1.png"]),
    (
        "images resized",
        TRAIN,
        resized,
        ["4 images have another size", "16 x 12 pixels, stated 32 x 24"],
    ),
    ("EXIF", TRAIN, turned, ["1 image has the size", "EXIF", "train_1.png", "24 x 32 pixels"]),
    (
        "no objects to train on",
        TRAIN,
        edit(lambda content: content["annotations"].clear()),
        ["none of the 4 train images has an object"],
    ),
    (
        "no objects to validate",
        TRAIN,
        edit(lambda content: content["annotations"].clear(), "val"),
        ["none of the 2 val images has an object"],
    ),
    ("crowds alone", TRAIN, each(iscrowd=1), ["has an object, only 8 crowd regions"]),
    ("annotations as text", TRAIN, edit(lambda c: c.update(annotations=["a"] * 3)), ["3 objects"]),
    ("unknown images", TRAIN, each(image_id=99), ["8 objects of images that are not listed"]),
    ("unknown classes", TRAIN, each(category_id=99), ["8 objects of classes", "category_id 99"]),
    ("boxes as text", TRAIN, each(bbox="1 2 3 4"), ["8 objects without the needed numbers"]),
    ("boxes without area", TRAIN, each(bbox=[3, 3, 0, 4]), ["8 boxes without an area"]),
    ("NaN", TRAIN, each(bbox=[float("nan"), 3, 2, 4]), ["8 boxes without an area", "corners nan"]),
    ("boxes outside", TRAIN, each(bbox=[99, 3, 2, 4]), ["8 boxes outside of their images"]),
    ("fractions", TRAIN, each(bbox=[0.1, 0.2, 0.3, 0.4]), ["fractions of the image", "pixels"]),
    ("corners", TRAIN, edit(pairs), ["8 boxes that reach beyond", "another order"]),
    ("no masks", INSTANCES, each(segmentation=[]), ["boxes and no masks", "detection"]),
    (
        "masks of another size",
        INSTANCES,
        each(segmentation={"size": [48, 64], "counts": [3072]}),
        ["8 masks of another size", "64 x 48 pixels, the image 32 x 24"],
    ),
    (
        "huge masks",
        INSTANCES,
        each(segmentation={"size": [10**9, 10**9], "counts": "0" * 9}),
        ["8 masks of another size"],
    ),
    (
        "run lengths do not decode",
        INSTANCES,
        each(segmentation={"size": [24, 32], "counts": "ooooo"}),
        ["8 masks that cannot be read", "do not decode"],
    ),
    (
        "run lengths beyond the image",
        INSTANCES,
        each(segmentation={"size": [24, 32], "counts": [700, 70]}),
        ["8 masks that cannot be read", "770 pixels, the image has 768"],
    ),
    (
        "empty masks",
        INSTANCES,
        each(segmentation={"size": [24, 32], "counts": [768]}),
        ["8 masks without a pixel"],
    ),
    (
        "two corners",
        INSTANCES,
        each(segmentation=[[1, 1, 9, 9]]),
        ["8 masks that cannot be read", "fewer than three corners"],
    ),
    (
        "two files of a split",
        TRAIN,
        lambda root: shutil.copy(
            annotation_file(root), root / "annotations" / "instances_train.json"
        ),
        ["2 annotation files for train", "data.options.splits"],
    ),
    (
        "val_size of a file",
        TRAIN + " --set data.val_size=1",
        nothing,
        ["val_size has no effect"],
    ),
    (
        "unknown ignored class",
        TRAIN + ' --set data.options.ignore=["squares"]',
        nothing,
        ["unknown class 'squares' in data.options.ignore", "'square'"],
    ),
    (
        "option of another type",
        TRAIN + " --set data.options.splits=train",
        nothing,
        ["data.options.splits = 'train'"],
    ),
    (
        "classes by option",
        TRAIN + ' --set data.options.classes=["square"]',
        nothing,
        ["objects of classes that the model does not know: wedge", "data.options.ignore"],
    ),
    (
        "data of labels",
        TRAIN + " --set data.name=folder",
        nothing,
        ["'folder' has no targets for the task 'detection'"],
    ),
    (
        "VOC for instances",
        INSTANCES + " --set data.name=voc",
        nothing,
        ["'voc' has no targets for the task 'instance_segmentation'", "detection"],
    ),
    ("VOC's layout", VOC, nothing, ["no annotation files (.xml)", "JPEGImages"]),
    ("XML truncated", VOC, as_voc("<annotation><obj"), [".xml is not XML"]),
    ("XML with entities", VOC, as_voc("<!DOCTYPE a []><annotation/>"), ["document type"]),
    ("XML of another tool", VOC, as_voc("<svg/>"), ["<svg>", "Pascal VOC"]),
    ("XML without objects", VOC, as_voc("<annotation/>"), ["no image has an object"]),
    (
        "YOLO's layout",
        YOLO,
        lambda root: (root / "classes.txt").write_text("square\nwedge\n"),
        ["none of the 4 images in", "has a label file"],
    ),
    ("YOLO without names", YOLO, as_yolo("0 .5 .5 .1 .1", ""), ["no data.yaml or classes.txt"]),
    ("YOLO in pixels", YOLO, as_yolo("0 16 12 4 4"), ["boxes outside of their images", "units"]),
    ("YOLO of more classes", YOLO, as_yolo("2 .5 .5 .1 .1"), ["4 objects of classes", "class 2"]),
    (
        "YOLO's boxes for instances",
        INSTANCES + " --set data.name=yolo",
        as_yolo("0 .5 .5 .1 .1"),
        ["4 objects without a mask", "for detection"],
    ),
    (
        "a class that the model does not know",
        EVALUATE,
        edit(lambda content: content["categories"][0].update(name="disc"), "test"),
        ["objects of classes that the model does not know: disc", "known: square; wedge"],
    ),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, write_coco: WriteCoco) -> Path:
    """Weights of a detector of squares and wedges that was not trained."""
    folder = tmp_path_factory.mktemp("detector")
    write_coco(folder)
    (folder / "objects.toml").write_text(RECIPE)
    recipe = recipes.load(str(folder / "objects.toml"))
    info = Coco(folder).info
    path = folder / "weights.safetensors"
    save_weights(path, build.task(recipe, info).model, recipe, info, {})
    return path


@pytest.mark.parametrize(
    ("command", "change", "words"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_one_line_and_exit_code_2(
    command: str,
    change: Change,
    words: list[str],
    tmp_path: Path,
    write_coco: WriteCoco,
    weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for split, num in (("train", 4), ("val", 2), ("test", 2)):
        write_coco(tmp_path / "data", split, num)
    (tmp_path / "objects.toml").write_text(RECIPE)
    shutil.copy(weights, tmp_path)
    change(tmp_path / "data")
    assert main([word.format(root=tmp_path) for word in command.split()]) == 2
    error = capsys.readouterr().err
    (line,) = error.strip().splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words), line
    assert not (tmp_path / "new").exists()


def test_a_few_wrong_objects_are_left_out_and_named(
    tmp_path: Path, write_coco: WriteCoco, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, num in (("train", 4), ("val", 2)):
        write_coco(tmp_path / "data", split, num)
    (tmp_path / "objects.toml").write_text(RECIPE)
    first("annotations", bbox=[3, 3, 0, 4])(tmp_path / "data")
    assert main([word.format(root=tmp_path) for word in TRAIN.split()]) == 0
    lines = capsys.readouterr().out
    assert "left out, of 8 train objects: 1 box without an area (object 1 of train2017/" in lines
    assert "train: 7 objects, at most 2 in an image; size (square root of the area)" in lines
