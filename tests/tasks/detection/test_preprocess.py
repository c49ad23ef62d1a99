from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from pacavit.data import (
    Batch,
    DataInfo,
    Loader,
    MemoryObjects,
    Objects,
    Rle,
    Sample,
    SampleRandom,
)
from pacavit.data.formats.rle import encode_masks
from pacavit.errors import RecipeError
from pacavit.tasks.detection import DetectionPreprocess, InstanceSegmentationConfig
from pacavit.tasks.detection.window import Window, boxes_of, visible_objects

TinyObjects: TypeAlias = Callable[..., MemoryObjects]
SEEDS = range(40)
SETTINGS: dict[str, dict[str, Any]] = {
    "flip": {"augment": {"flip": "both"}},
    "smaller": {"image_size": 20, "augment": {"flip": "none"}},
    "larger, longest side": {"image_size": 80, "longest_side": 96},
    "several sizes": {"augment": {"sizes": [20, 40, 64], "flip": "both"}},
    "crop first": {
        "image_size": 48,
        "augment": {"crop_first": {"sizes": [24, 40], "sides": [16, 32], "probability": 1.0}},
    },
    "crop": {"crop_size": [20, 24], "augment": {"flip": "both"}},
    "jitter": {"crop_size": [40, 40], "augment": {"scale": [0.4, 2.0], "photometric": 1.0}},
    "resized crop": {"image_size": 64, "crop_size": [32, 48], "augment": {"min_visible": 0.0}},
}


def preprocess(info: DataInfo, *, masks: bool = True, **config: Any) -> DetectionPreprocess:
    made = InstanceSegmentationConfig.model_validate_json(json.dumps(config))
    return DetectionPreprocess(made, info, training=True, masks=masks)


def bright(pixels: Tensor) -> Tensor:
    """(3, H, W) -> (H, W), where the rectangles of the tiny images are."""
    return pixels.amax(0) > 155


@pytest.mark.parametrize("setting", SETTINGS)
def test_images_boxes_and_masks_move_together(
    setting: str, info: DataInfo, tiny_objects: TinyObjects
) -> None:
    made = preprocess(info, **{"augment": {}, **SETTINGS[setting]})
    without = preprocess(info, masks=False, **SETTINGS[setting])
    agreeing, compared = 0, 0
    for seed in SEEDS:
        images = tiny_objects(1, seed)
        random = SampleRandom(seed, 0, torch.tensor([0]))
        sample, placement = made.sample(images[0], random)
        height, width = sample.image.shape[1:]
        boxes, masks = sample.target["boxes"], sample.target["masks"]
        assert placement.input_size == (height, width)
        assert masks.shape == (len(boxes), height, width)
        assert masks.dtype == torch.bool
        assert 0 < len(boxes) <= len(images.objects[0])
        assert bool((boxes >= 0).all() and (boxes <= torch.tensor([width, height] * 2)).all())
        assert bool((boxes[:, 2:] - boxes[:, :2] >= 1).all())
        # Rectangles, so boxes and masks describe the same, but for the rounding to pixels.
        assert (boxes_of(masks) - boxes).abs().max() <= 1
        if "photometric" not in SETTINGS[setting].get("augment", {}):
            # Objects that are left out are still in the image, so masks are a part of it.
            agreeing += int((bright(sample.image) & masks.any(0)).sum())
            compared += int(masks.any(0).sum())
        boxes_alone = without.sample(images[0], random)[0].target["boxes"]
        if len(boxes_alone) == len(boxes):
            assert (boxes_alone - boxes).abs().max() <= 1
    # Edges are blended, and a bright rectangle may cover another one.
    assert agreeing >= 0.8 * compared


def test_a_flip_is_exact(info: DataInfo, tiny_objects: TinyObjects) -> None:
    images = tiny_objects(1)
    mirrored = Window.whole((32, 48), (32, 48)).flipped(horizontal=True, vertical=False)
    target = images.objects[0]
    assert torch.equal(mirrored.of_image(images.images[0]), images.images[0].flip(2))
    assert target.masks is not None
    found = mirrored.of_masks(target.masks)
    for pixels, mask, box in zip(found, target.masks, target.boxes, strict=True):
        assert torch.equal(pixels, mask.decode().flip(1))
        x1, y1, x2, y2 = box.tolist()
        assert mirrored.of_boxes(box[None])[0].tolist() == [48 - x2, y1, 48 - x1, y2]


def test_crops_keep_an_object(info: DataInfo, tiny_objects: TinyObjects) -> None:
    # One small object in a large image, which most crops would miss.
    made = preprocess(info, crop_size=[16, 16], augment={"flip": "none"})
    masks = torch.zeros(1, 200, 300, dtype=torch.bool)
    masks[0, 150:158, 20:30] = True
    target = Objects(
        boxes_of(masks),
        torch.tensor([1]),
        torch.tensor([False]),
        torch.tensor([80.0]),
        (200, 300),
        1,
        encode_masks(masks),
    )
    sample = Sample(torch.zeros(3, 200, 300, dtype=torch.uint8), target, 0)
    for seed in range(20):
        found, _ = made.sample(sample, SampleRandom(seed, 0, torch.tensor([0])))
        assert len(found.target["labels"]) == 1
        assert found.image.shape == (3, 16, 16)


def test_parts_that_are_cut_out_first_get_the_usual_size(
    info: DataInfo, tiny_objects: TinyObjects
) -> None:
    images = tiny_objects(1)  # of 32 x 48 pixels
    first = {"sizes": [64], "sides": [32, 32], "probability": 0.5}
    made = preprocess(info, image_size=40, augment={"crop_first": first})
    parts = []
    for seed in range(60):
        sample, placement = made.sample(images[0], SampleRandom(seed, 0, torch.tensor([0])))
        height, width = sample.image.shape[1:]
        if (height, width) == (40, 40):
            # Of the image enlarged to 64 x 96 pixels 32 x 32, which are 16 x 16 as stored.
            assert placement.region[2:] == pytest.approx((16, 16), abs=0.5)
            parts.append(placement.region[:2])
        else:
            assert (height, width) == (40, 60)
    assert 20 <= len(parts) <= 40
    assert len(set(parts)) > 5
    with pytest.raises(ValueError, match=r"either crop_size or augment\.crop_first"):
        preprocess(info, crop_size=[8, 8], augment={"crop_first": first})


def test_hardly_visible_objects_are_left_out(info: DataInfo) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [18, 0, 28, 10]])  # of the second 2 of 10 columns show
    objects = Objects(
        boxes, torch.tensor([0, 1]), torch.zeros(2).bool(), torch.full((2,), 100.0), (10, 28), 1
    )
    sample = Sample(torch.zeros(3, 10, 28, dtype=torch.uint8), objects, 0)
    kept = set()
    for least in (0.0, 0.3):
        made = preprocess(
            info, masks=False, crop_size=[10, 20], augment={"flip": "none", "min_visible": least}
        )
        for seed in range(30):
            found, placement = made.sample(sample, SampleRandom(seed, 0, torch.tensor([0])))
            if placement.region.left == 0:
                kept.add((least, tuple(found.target["labels"].tolist())))
                assert found.target["boxes"][0].tolist() == [0, 0, 10, 10]
    assert kept == {(0.0, (0, 1)), (0.3, (0,))}


def test_a_cut_object_has_the_box_of_its_mask(info: DataInfo) -> None:
    # An L: the crop shows only its lower bar.
    masks = torch.zeros(1, 20, 20, dtype=torch.bool)
    masks[0, :, :4] = True
    masks[0, 16:, :] = True
    window = replace(Window.whole((20, 20), (20, 20)), corner=(0, 6), size=(20, 14))
    objects = Objects(
        torch.tensor([[0.0, 0, 20, 20]]),
        torch.tensor([0]),
        torch.tensor([False]),
        torch.tensor([128.0]),
        (20, 20),
        1,
        encode_masks(masks),
    )
    found = visible_objects(objects, window, 0.1, masks=True)
    assert found["boxes"].tolist() == [[0, 16, 14, 20]]
    alone = visible_objects(objects, window, 0.1, masks=False)
    assert alone["boxes"].tolist() == [[0, 0, 14, 20]]


@pytest.mark.parametrize("masks", [False, True])
def test_crowds_are_no_targets(masks: bool, info: DataInfo, tiny_objects: TinyObjects) -> None:
    images = tiny_objects(1, 3)
    target = images.objects[0]
    crowd = torch.zeros(len(target), dtype=torch.bool)
    crowd[0] = True
    made = preprocess(info, masks=masks, augment={"flip": "none"})
    random = SampleRandom(0, 0, torch.tensor([0]))
    found, _ = made.sample(replace(images[0], target=replace(target, crowd=crowd)), random)
    assert torch.equal(found.target["labels"], target.labels[1:])
    torch.testing.assert_close(found.target["boxes"], target.boxes[1:])


def test_masks_are_computed_inside_the_crop_only(
    info: DataInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 masks of a large image would not fit into memory at once."""
    size = (1500, 2000)
    masks = torch.zeros(1, *size, dtype=torch.bool)
    masks[0, 100:160, 200:290] = True
    [mask] = encode_masks(masks)
    number = 200
    objects = Objects(
        boxes_of(masks).expand(number, 4),
        torch.zeros(number, dtype=torch.int64),
        torch.zeros(number).bool(),
        torch.full((number,), 5400.0),
        size,
        1,
        (mask,) * number,
    )
    decoded = 0
    decode = Rle.decode

    def counting(self: Rle) -> Tensor:
        nonlocal decoded
        decoded += 1
        return decode(self)

    monkeypatch.setattr(Rle, "decode", counting)
    made = preprocess(info, crop_size=[64, 64], augment={"flip": "none"})
    sample = Sample(torch.zeros(3, *size, dtype=torch.uint8), objects, 0)
    found, _ = made.sample(sample, SampleRandom(0, 0, torch.tensor([0])))
    assert found.target["masks"].shape[1:] == (64, 64)
    assert decoded == number  # one at a time


def test_batches_are_padded_and_survive_being_moved_and_split(
    info: DataInfo, tiny_objects: TinyObjects
) -> None:
    made = preprocess(info, augment={"flip": "none"}, empty_images=True)
    wide, tall = tiny_objects(1, 0), tiny_objects(1, 1, (50, 20))
    empty = Sample(torch.zeros(3, 10, 10, dtype=torch.uint8), Objects.none((10, 10), masks=True), 2)
    random = SampleRandom(0, 0, torch.arange(3))
    samples = [
        made.sample(sample, random.sample(row))
        for row, sample in enumerate((wide[0], replace(tall[0], index=1), empty))
    ]
    batch = made.batch(made.collate(samples), random).to(torch.device("cpu"))
    assert batch.images.shape == (3, 3, 50, 48)
    assert [placement.input_size for placement in batch.placements] == [
        (32, 48),
        (50, 20),
        (10, 10),
    ]
    for target in batch.targets:
        assert target["masks"].shape[1:] == (50, 48)
    assert len(batch.targets[2]["labels"]) == 0
    # The mean color becomes about 0.
    assert float(batch.images[0, :, 32:].abs().max()) < 0.02
    first, second = batch.chunk(2)
    assert len(first.targets) == 2
    assert torch.equal(second.targets[0]["boxes"], torch.zeros(0, 4))
    assert len(batch[:0].targets) == 0


def test_crops_of_a_batch_have_one_size(info: DataInfo, tiny_objects: TinyObjects) -> None:
    made = preprocess(info, crop_size=[40, 40], augment={"scale": [0.3, 0.9]})
    images = tiny_objects(2)
    random = SampleRandom(0, 0, torch.arange(2))
    batch = made.collate([made.sample(images[row], random.sample(row)) for row in range(2)])
    assert batch.images.shape == (2, 3, 40, 40)
    assert all(max(placement.input_size) <= 40 for placement in batch.placements)


def test_evaluation_keeps_objects_in_pixels_of_the_original(
    info: DataInfo, tiny_objects: TinyObjects
) -> None:
    images = tiny_objects(2)
    config = InstanceSegmentationConfig(image_size=16)
    made = DetectionPreprocess(config, info, training=False, masks=True)
    batch = next(Loader(images, 2, made, shuffle=False, drop_last=False, seed=0).epoch(0))
    assert batch.images.shape == (2, 3, 16, 24)
    assert batch.targets[0] is images.objects[0]
    unlabeled = made.collate([made.sample(Sample(images.images[0], None, 0), _random(1))])
    assert unlabeled.targets is None


def test_draws_are_a_function_of_seed_epoch_and_index(
    info: DataInfo, tiny_objects: TinyObjects
) -> None:
    images = tiny_objects(6)
    made = preprocess(
        info,
        crop_size=[24, 24],
        augment={"scale": [0.5, 2.0], "photometric": 1.0, "copy_paste": 1.0, "flip": "both"},
    )

    def epoch(number: int, start: int = 0) -> list[Batch]:
        loader = Loader(images, 2, made, shuffle=True, drop_last=True, seed=3)
        return list(loader.epoch(number, start))

    for first, second in zip(epoch(0)[1:], epoch(0, 1), strict=True):
        assert torch.equal(first.images, second.images)
        for own, other in zip(first.targets, second.targets, strict=True):
            assert all(torch.equal(own[name], other[name]) for name in own)
    assert not torch.equal(epoch(0)[0].images, epoch(1)[0].images)


def _random(number: int, seed: int = 0) -> SampleRandom:
    return SampleRandom(seed, 0, torch.arange(number))


def square(corner: int, label: int, color: int, size: tuple[int, int] = (20, 20)) -> Sample:
    """A square of 8 pixels in an image of one other color."""
    masks = torch.zeros(1, *size, dtype=torch.bool)
    masks[0, corner : corner + 8, corner : corner + 8] = True
    image = torch.full((3, *size), color, dtype=torch.uint8)
    image[:, masks[0]] = color + 100
    return Sample(
        image,
        Objects(
            boxes_of(masks),
            torch.tensor([label]),
            torch.tensor([False]),
            torch.tensor([64.0]),
            size,
            1,
            encode_masks(masks),
        ),
        0,
    )


def pasted(info: DataInfo, *samples: Sample, **augment: Any) -> Batch:
    made = preprocess(info, augment={"flip": "none", "copy_paste": 1.0, **augment})
    number = len(samples)
    placed = [
        made.sample(replace(sample, index=row), _random(number).sample(row))
        for row, sample in enumerate(samples)
    ]
    made.info = replace(info, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
    return made.batch(made.collate(placed), _random(number))


def test_pasted_objects_cover_others(info: DataInfo) -> None:
    batch = pasted(info, square(2, 0, 0), square(6, 1, 50))
    first, second = batch.targets
    # 6..14 over 2..10: the corner of 4 x 4 pixels of the first is covered.
    assert first["labels"].tolist() == [0, 1]
    assert first["masks"].flatten(1).sum(1).tolist() == [48, 64]
    assert first["boxes"].tolist() == [[2, 2, 10, 10], [6, 6, 14, 14]]
    assert second["labels"].tolist() == [1, 0]
    assert second["masks"].flatten(1).sum(1).tolist() == [48, 64]
    assert batch.images[0, 0, 8, 8] == 150  # of the second image
    assert batch.images[0, 0, 3, 3] == 100
    assert batch.images[1, 0, 8, 8] == 100
    for target in batch.targets:
        assert int(target["masks"].sum(0).max()) == 1


def test_covered_objects_are_left_out(info: DataInfo) -> None:
    batch = pasted(info, square(2, 0, 0), square(3, 1, 50))
    assert batch.targets[0]["labels"].tolist() == [1]  # 15 of 64 pixels are left
    batch = pasted(info, square(2, 0, 0), square(3, 1, 50), min_visible=0.2)
    assert batch.targets[0]["labels"].tolist() == [0, 1]
    assert batch.targets[0]["boxes"].tolist()[0] == [2, 2, 10, 10]


def test_nothing_is_pasted_into_padding(info: DataInfo) -> None:
    batch = pasted(info, square(2, 0, 0, (12, 12)), square(9, 1, 50), min_visible=0.0)
    target = batch.targets[0]
    assert target["boxes"].tolist()[1] == [9, 9, 12, 12]
    assert not target["masks"][:, 12:].any()
    assert (batch.images[0, :, 12:] == batch.images[0, :, -1:, -1:]).all()


def test_an_image_without_a_partner_stays(info: DataInfo) -> None:
    batch = pasted(info, square(2, 0, 0), square(6, 1, 50), square(4, 0, 20))
    assert batch.targets[2]["labels"].tolist() == [0]


def test_pasting_needs_masks(info: DataInfo) -> None:
    with pytest.raises(RecipeError, match=r"task\.augment\.copy_paste needs masks"):
        preprocess(info, masks=False, augment={"copy_paste": 0.5})


def test_too_small_images_are_refused(info: DataInfo) -> None:
    with pytest.raises(RecipeError, match="images are resized to 1 pixels at least"):
        preprocess(info, image_size=10, augment={"scale": [0.1, 1.0]})


def test_other_sizes_shrink_in_proportion(info: DataInfo) -> None:
    config = InstanceSegmentationConfig.model_validate_json(
        json.dumps(
            {
                "image_size": 64,
                "longest_side": 100,
                "crop_size": [48, 48],
                "augment": {"sizes": [48, 64]},
            }
        )
    )
    made = DetectionPreprocess(config, info, training=True, image_size=32, masks=True)
    assert made.config.image_size == 32
    assert made.config.longest_side == 50
    assert made.config.crop_size == (24, 24)
    assert made.config.augment.sizes == (24, 32)


@pytest.mark.parametrize("seed", range(12))
def test_masks_of_any_shape_are_those_of_the_nearest_pixels(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    stored, resized = (37, 51), (20 + 5 * seed, 30 + 4 * seed)
    window = replace(
        Window.whole(stored, resized),
        corner=(seed % 4, seed % 3),
        size=(16, 25),
        horizontal=seed % 2 == 0,
        vertical=seed % 3 == 0,
    )
    masks = torch.zeros(3, *stored, dtype=torch.bool)
    masks[0] = torch.rand(stored, generator=generator) < 0.3
    masks[1, 12:30, 3:9] = True
    found = window.of_masks(encode_masks(masks))
    (top, left), (height, width) = window.corner, window.size
    large = torch.nn.functional.interpolate(masks[None].float(), resized, mode="nearest-exact")[0]
    expected = large[:, top : top + height, left : left + width].bool()
    expected = expected.flip(2) if window.horizontal else expected
    assert torch.equal(found, expected.flip(1) if window.vertical else expected)
