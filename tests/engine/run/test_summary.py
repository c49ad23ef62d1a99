from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from pacavit.data import (
    DataInfo,
    Folder,
    ImageSet,
    MemoryImages,
    MemoryMasks,
    MemoryObjects,
    Objects,
    Split,
)
from pacavit.engine.run.summary import describe_data, describe_training
from pacavit.recipes import Recipe, load

INFO = DataInfo("folder", "folder of 60 images", ("ant", "bee"), (48, 64), (0, 0, 0), (1, 1, 1))


@pytest.fixture
def recipe() -> Recipe:
    return load("digits", ["task.image_size=null"])


def images(labels: torch.Tensor) -> MemoryImages:
    return MemoryImages(torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8), labels)


def of_counts(*counts: int) -> MemoryImages:
    return images(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)))


def test_few_classes_are_a_table(recipe: Recipe) -> None:
    train, test = of_counts(1200, 100), of_counts(7, 9)
    assert describe_data(recipe, INFO, {"train": train}, {"test": test}) == [
        "data: folder of 60 images; stored with 64 x 48 pixels, network input 64 x 48",
        "images: 1,300 train, 16 test",
        "  class  train  test",
        "  ant    1,200     7",
        "  bee      100     9",
        "imbalance: ant has 12 times as many training images as bee; "
        "train.class_weights=balanced gives classes the same weight",
    ]


def test_the_rarest_and_the_most_frequent_of_many_classes_are_named(recipe: Recipe) -> None:
    info = replace(INFO, class_names=tuple(f"class {number}" for number in range(30)))
    lines = describe_data(recipe, info, {"train": of_counts(*range(20, 50))}, {})
    assert lines[2:] == [
        "  30 classes; training images, fewest: class 0 20, class 1 21, class 2 22; "
        "most: class 29 49, class 28 48, class 27 47"
    ]


def test_images_with_several_labels_count_for_each(recipe: Recipe) -> None:
    labels = torch.tensor([[1, 1], [0, 1]], dtype=torch.uint8)
    assert describe_data(recipe, INFO, {"train": images(labels)}, {})[2:] == [
        "  class  train",
        "  ant        1",
        "  bee        2",
    ]


def test_classes_of_masks_are_a_table_of_pixels_and_images(recipe: Recipe) -> None:
    masks = torch.zeros(3, 10, 10, dtype=torch.uint8)
    masks[0, :1], masks[0, 1:3], masks[2] = 1, 255, 255
    train = MemoryMasks(torch.zeros(3, 3, 10, 10, dtype=torch.uint8), masks, 2)
    lines = describe_data(recipe, INFO, {"train": train}, {})
    assert lines == [
        "data: folder of 60 images; stored with 64 x 48 pixels, crops in training 64 x 48",
        "images: 3 train",
        "  class  train pixels  images",
        "  ant          94.44%       2",
        "  bee           5.56%       1",
        "imbalance: ant has 17 times as many training pixels as bee; "
        "train.class_weights=balanced weighs them by median frequency",
        "unlabeled pixels, in no loss and no score: 40.00% of train",
        "train images without a labeled pixel: 1, image 2",
    ]
    whole = MemoryMasks(torch.zeros(2, 3, 10, 10, dtype=torch.uint8), masks[:2].clamp_max(1), 2)
    assert "unlabeled" not in "".join(describe_data(recipe, INFO, {"train": whole}, {}))


def test_network_device_and_steps(recipe: Recipe) -> None:
    model, steps = describe_training(recipe, 1234567, torch.device("cpu"), 19, 2)
    assert model.startswith("model: pacavit_nano, 1,234,567 parameters, on cpu (")
    assert model.endswith(", 2 processes, bf16")
    assert steps == f"training: {recipe.train.epochs} epochs of 19 steps of 64 images"


def test_sizes_of_files_and_what_is_enlarged(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number, size in enumerate([(20, 90), (40, 30), (64, 70), (80, 200), (100, 100)]):
            Image.new("RGB", size).save(tmp_path / name / f"{number}.png")
    (tmp_path / "b" / "4.png").write_bytes(b"no image")
    source = Folder(tmp_path, val_size=0, test_size=0)
    recipe = load("folder_nano")
    files: dict[Split, ImageSet | None] = {"train": source.files("train")}
    lines = describe_data(recipe, source.info, {}, files)
    assert lines[2] == (
        "sizes: shorter sides of 20 to 100 pixels, median 64; longest side 200; 44% of the images "
        "are enlarged to 64 x 64"
    )
    recipe = load("folder_nano", ["task.image_size=90"])
    (line,) = (line for line in describe_data(recipe, source.info, {}, files) if "sizes" in line)
    assert line.endswith(
        "89% of the images are enlarged to 90 x 90, and a lower task.image_size would cost less"
    )


def test_objects_are_counted_per_class_and_image(recipe: Recipe) -> None:
    def objects(labels: list[int], *crowd: bool) -> Objects:
        areas = torch.tensor([4.0 * (label + 1) ** 2 for label in labels])
        return Objects(
            torch.tensor([[0.0, 0.0, 2.0, 2.0]] * len(labels)),
            torch.tensor(labels),
            torch.tensor(crowd or [False] * len(labels)),
            areas,
            (2, 2),
            1,
        )

    def of(*targets: Objects) -> MemoryObjects:
        return MemoryObjects(torch.zeros(len(targets), 3, 2, 2, dtype=torch.uint8), targets, 2)

    train = of(objects([0, 0, 0]), objects([0, 1, 1], False, False, True), Objects.none((2, 2)))
    val = of(objects([1]))
    assert describe_data(recipe, INFO, {"train": train, "val": val}, {})[1:] == [
        "images: 3 train, 1 val",
        "  class  train objects  images  val objects  images",
        "  ant                4       2            0       0",
        "  bee                1       1            1       1",
        "imbalance: ant has 4 times as many training objects as bee",
        "train: 5 objects, at most 3 in an image; size (square root of the area) 2 pixels in the "
        "median, 80 % from 2 to 2",
        "val: 1 object, at most 1 in an image; size (square root of the area) 4 pixels in the "
        "median, 80 % from 4 to 4",
        "images without objects: 1 train, 0 val",
        "crowd regions, never learned from, predictions in them do not count: 1 train, 0 val",
    ]
