from pathlib import Path

import pytest
import torch

from pacavit.data import MemoryImages, MemoryMasks, MemoryObjects, Shapes, TargetKind
from pacavit.errors import DataError


def small() -> Shapes:
    return Shapes(train_size=70, test_size=5, val_size=6, image_size=32)


def test_pictures_and_labels_are_those_of_the_scenes() -> None:
    source = small()
    images = source.load("train")
    assert images.images.shape == (70, 3, 32, 32)
    scenes = source.scenes("train", torch.tensor([3, 66]))
    assert torch.equal(scenes.images, images.images[[3, 66]])
    assert isinstance(images, MemoryImages)
    assert torch.equal(scenes.classes[:, 0], images.labels[[3, 66]])
    assert source.info.image_size == (32, 32)
    assert len(source.info.class_names) == 8


def test_splits_do_not_share_scenes_and_do_not_depend_on_their_sizes() -> None:
    source = small()
    first = {split: source.load(split).images[:5] for split in ("train", "val", "test")}
    assert not torch.equal(first["train"], first["val"])
    assert not torch.equal(first["val"], first["test"])
    other = Shapes(train_size=9, test_size=9, val_size=9, image_size=32)
    assert torch.equal(other.load("val").images[:5], first["val"])


def test_mean_and_std_are_near_those_of_the_pictures() -> None:
    pixels = Shapes(train_size=200).load("train").images.float() / 255
    info = small().info
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.tensor(info.mean), atol=0.05, rtol=0)
    torch.testing.assert_close(pixels.std((0, 2, 3)), torch.tensor(info.std), atol=0.05, rtol=0)


def test_as_masks_every_shape_counts_and_the_background_is_the_first_class() -> None:
    source = Shapes(train_size=70, test_size=5, val_size=6, image_size=32, target="mask")
    images = source.load("train")
    assert isinstance(images, MemoryMasks)
    scenes = source.scenes("train", torch.tensor([3, 66]))
    assert torch.equal(images.masks[[3, 66]], scenes.semantic)
    assert torch.equal(images.images, small().load("train").images)
    counts = images.masks.flatten().long().bincount(minlength=9)
    assert torch.equal(images.pixel_counts, counts)
    assert source.info.class_names == ("background", *small().info.class_names)
    assert source.info.masks is not None
    assert source.info.masks.values == tuple(range(9))


def test_what_a_user_can_get_wrong() -> None:
    with pytest.raises(DataError, match="take no data folder"):
        Shapes(Path("images"))
    with pytest.raises(DataError, match="val_size is 0"):
        Shapes(val_size=0).load("val")


def test_as_objects_every_visible_shape_counts() -> None:
    def objects(target: TargetKind) -> MemoryObjects:
        source = Shapes(train_size=70, test_size=5, val_size=6, image_size=32, target=target)
        images = source.load("train")
        assert isinstance(images, MemoryObjects)
        assert source.info.objects is not None
        assert source.info.objects.category_ids == tuple(range(1, 9))
        return images

    boxes, instances = objects("boxes"), objects("instances")
    assert torch.equal(boxes.images, small().load("train").images)
    scenes = small().scenes("train", torch.arange(70))
    counts = scenes.classes[scenes.classes >= 0].bincount(minlength=8)
    assert torch.equal(boxes.statistics.objects, counts)
    for index in (3, 66):
        target = instances.target(index)
        seen = scenes.classes[index] >= 0
        assert torch.equal(target.labels, scenes.classes[index][seen])
        assert torch.equal(target.boxes, scenes.boxes[index][seen])
        assert target.masks is not None
        masks = torch.stack([mask.decode() for mask in target.masks])
        assert torch.equal(masks, scenes.masks[index][seen])
        assert torch.equal(target.areas, masks.sum((1, 2)).float())
        assert target.image_id == index + 1
        assert boxes.target(index).masks is None
