from dataclasses import replace

import pytest
import torch

from pacavit.data import DataInfo, MemoryImages
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
    assert describe_data(recipe, INFO, {"train": train}, test) == [
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
    lines = describe_data(recipe, info, {"train": of_counts(*range(20, 50))}, None)
    assert lines[2:] == [
        "  30 classes; training images, fewest: class 0 20, class 1 21, class 2 22; "
        "most: class 29 49, class 28 48, class 27 47"
    ]


def test_images_with_several_labels_count_for_each(recipe: Recipe) -> None:
    labels = torch.tensor([[1, 1], [0, 1]], dtype=torch.uint8)
    assert describe_data(recipe, INFO, {"train": images(labels)}, None)[2:] == [
        "  class  train",
        "  ant        1",
        "  bee        2",
    ]


def test_network_device_and_steps(recipe: Recipe) -> None:
    model, steps = describe_training(recipe, 1234567, torch.device("cpu"), 19, 2)
    assert model.startswith("model: pacavit_nano, 1,234,567 parameters, on cpu (")
    assert model.endswith(", 2 processes, bf16")
    assert steps == f"training: {recipe.train.epochs} epochs of 19 steps of 64 images"
