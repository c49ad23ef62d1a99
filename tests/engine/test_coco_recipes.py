"""The published COCO recipes: what they say, what they build, and two steps of each."""

from __future__ import annotations

import pytest
import torch

from pacavit import recipes
from pacavit.data import DataInfo, Loader, MemoryObjects, ObjectInfo, Objects
from pacavit.data.formats.rle import encode_masks
from pacavit.engine import build, optim
from pacavit.recipes import parse
from pacavit.tasks.detection import InstanceSegmentationConfig

# Published: parameters of Mask R-CNN with 80 classes.
PUBLISHED = {
    "coco_tiny": 31_974_896,
    "coco_small": 41_811_920,
    "coco_base": 66_606_672,
    "coco_mlp": 42_411_484,
    "coco_teacher": 40_849_280,
}
_STEPS = 117_266 // 16  # in an epoch: the images with objects


def coco_info(num_classes: int = 80) -> DataInfo:
    numbers = tuple(range(1, num_classes + 1))
    return DataInfo(
        "coco",
        "of the test",
        tuple(f"class {number}" for number in numbers),
        (480, 640),
        (0.5,) * 3,
        (0.25,) * 3,
        objects=ObjectInfo(numbers, ((0, 0, 0),) * num_classes),
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_training_is_as_published(name: str) -> None:
    recipe = recipes.load(name)
    train, task = recipe.train, recipe.task
    assert isinstance(task, InstanceSegmentationConfig)
    assert recipe.data.name == "coco"
    assert (task.detector, task.detector_options) == ("mask_rcnn", {})
    assert (task.image_size, task.longest_side, task.crop_size) == (800, 1333, None)
    assert task.augment.sizes == tuple(range(480, 801, 32))
    first = task.augment.crop_first
    assert first is not None
    assert (first.sizes, first.sides, first.probability) == ((400, 500, 600), (384, 600), 0.5)
    assert (task.augment.flip, task.empty_images, task.group_by_aspect) == (
        "horizontal",
        False,
        True,
    )
    assert (train.optimizer, train.lr, train.weight_decay) == ("adamw", 1e-4, 0.05)
    assert (train.epochs, train.batch_size, train.precision) == (12, 16, "bf16")
    total = train.epochs * _STEPS
    assert train.warmup * total == pytest.approx(500, rel=0.005)
    by_epoch = [optim.lr_at(epoch * _STEPS + 4, total, train) for epoch in range(1, 12)]
    assert by_epoch == pytest.approx([1e-4] * 7 + [1e-5] * 3 + [1e-6])
    assert recipe.model.drop_path == 0.1


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_networks_are_those_of_the_paper(name: str) -> None:
    with torch.device("meta"):
        network = build.task(recipes.load(name), coco_info()).model
    assert sum(parameter.numel() for parameter in network.parameters()) == PUBLISHED[name]


def squares(num: int) -> MemoryObjects:
    """Images (num, 3, 60, 90) with a bright square each."""
    images = torch.zeros(num, 3, 60, 90, dtype=torch.uint8)
    found = []
    for row in range(num):
        mask = torch.zeros(1, 60, 90, dtype=torch.bool)
        mask[0, 10 : 40 + row, 20 : 50 + row] = True
        images[row, :, mask[0]] = 220
        box = torch.tensor([[20.0, 10, 50 + row, 40 + row]])
        label, crowd = torch.tensor([row % 3]), torch.zeros(1, dtype=torch.bool)
        area = mask.sum().float()[None]
        found.append(Objects(box, label, crowd, area, (60, 90), row, encode_masks(mask)))
    return MemoryObjects(images, found, 3)


@pytest.mark.parametrize("name", PUBLISHED)
def test_two_steps_reduce_the_loss(name: str) -> None:
    document = recipes.load(name).model_dump(mode="json")
    few = {"box_rois": 16, "proposals": [50, 50]}
    document["task"] |= {"image_size": 64, "longest_side": 96, "detector_options": few}
    document["task"]["augment"] |= {"sizes": [64], "flip": "none", "crop_first": None}
    document["model"] |= {"init": None, "drop_path": 0.0}
    document["train"] |= {"batch_size": 2}
    recipe, info = parse(document, "the test"), coco_info(3)
    torch.manual_seed(0)
    task = build.task(recipe, info).train()
    loader = Loader(
        squares(2),
        2,
        task.preprocess(recipe.task, info, training=True),
        shuffle=False,
        drop_last=True,
        seed=0,
        num_workers=0,
    )
    (batch,) = loader.epoch(0)
    optimizer = optim.create_optimizer(task.model, recipe.train)
    optim.set_lr(optimizer, 1e-4)
    totals = []
    for _ in range(3):
        torch.manual_seed(0)  # the same samples of anchors and regions
        total = torch.stack(list(task(batch).values())).sum()
        totals.append(total.item())
        if len(totals) < 3:
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
    assert totals[2] < totals[0]
