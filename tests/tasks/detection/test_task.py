from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from rich.console import Console
from torch import Tensor

import pacavit
from pacavit.data import (
    DATASETS,
    Batch,
    DataInfo,
    DataSource,
    ImageSet,
    MemoryObjects,
    Objects,
    Placement,
    Region,
    Sample,
    SampleRandom,
    Split,
)
from pacavit.detectors import DETECTORS, Detected, Target
from pacavit.engine.build import Networks
from pacavit.engine.class_weights import weigh_classes
from pacavit.engine.distillation import load_distiller
from pacavit.engine.run.log import read_metrics
from pacavit.errors import DataError, RecipeError, UnknownNameError
from pacavit.recipes import Recipe, parse
from pacavit.tasks import TASKS, DetectionTask, InstanceSegmentationTask
from pacavit.tasks.detection import (
    DetectionConfig,
    ImageDetections,
    InstanceSegmentationConfig,
)
from pacavit.tasks.detection.restore import restore_objects

MakeTask: TypeAlias = Callable[..., DetectionTask]
TinyObjects: TypeAlias = Callable[..., MemoryObjects]


def recipe(task: str, detector: str, train: dict[str, Any] | None = None) -> Recipe:
    return parse(
        {
            "name": "tiny",
            "data": {"name": "tiny_objects"},
            "model": {
                "name": "pacavit_nano",
                "num_clusters": [4, 4, 0],
                "options": {"depths": [1, 1, 1]},
            },
            "task": {"name": task, "detector": detector},
            "train": {
                "epochs": 2,
                "batch_size": 4,
                "eval_batch_size": 4,
                "lr": 0.001,
                "device": "cpu",
                "loggers": [],
                **(train or {}),
            },
        },
        "the test's recipe",
    )


@pytest.mark.parametrize(
    ("name", "detector"), [("detection", "tiny"), ("instance_segmentation", "tiny_masks")]
)
def test_a_run_trains_and_is_scored(name: str, detector: str, tmp_path: Path) -> None:
    run = pacavit.engine.train(recipe(name, detector), tmp_path / "run", progress=False)
    rows = read_metrics(run)
    task, losses = TASKS.get(name), DETECTORS.get(detector).loss_names
    assert len(rows) == 2
    for row in rows:
        assert row[f"val_{task.main_metric}"] >= 0
        parts = sum(row[f"train_loss_{loss}"] for loss in losses)
        assert row["train_loss"] == pytest.approx(parts)


def test_the_tasks_are_registered() -> None:
    assert TASKS.get("detection") is DetectionTask
    assert TASKS.get("instance_segmentation") is InstanceSegmentationTask
    assert (DetectionTask.target, DetectionTask.main_metric) == ("boxes", "box_AP")
    assert InstanceSegmentationTask.target == "instances"
    assert InstanceSegmentationTask.main_metric == "mask_AP"


def test_a_detector_of_the_other_kind_is_refused(info: DataInfo) -> None:
    factory = Networks(recipe("detection", "tiny").model)
    with pytest.raises(RecipeError, match="'tiny_masks' finds masks, which task detection does no"):
        DetectionTask.build(DetectionConfig(detector="tiny_masks"), info, factory)
    config = InstanceSegmentationConfig(detector="tiny")
    with pytest.raises(RecipeError, match=r"'tiny' finds boxes only; choose among .*tiny_masks"):
        InstanceSegmentationTask.build(config, info, factory)


def test_options_that_the_detector_refuses_are_named(info: DataInfo) -> None:
    factory = Networks(recipe("detection", "tiny").model)
    config = DetectionConfig(detector="tiny", detector_options={"found": 0})
    with pytest.raises(RecipeError, match=r"found must be at least 1; check .*\(found\)"):
        DetectionTask.build(config, info, factory)
    config = DetectionConfig(detector="tiny", detector_options={"fuond": 1})
    with pytest.raises(UnknownNameError, match="did you mean 'found'"):
        DetectionTask.build(config, info, factory)


def eval_batch(task: DetectionTask, info: DataInfo, *images: Tensor) -> Batch:
    made = task.preprocess(task.config, info, training=False)
    random = SampleRandom(0, 0, torch.arange(len(images)))
    samples = [
        made.sample(Sample(each, None, number), random) for number, each in enumerate(images)
    ]
    return made.batch(made.collate(samples), random)


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("masks", [False, True])
def test_predictions_are_in_pixels_of_the_original(
    masks: bool, info: DataInfo, make_task: MakeTask
) -> None:
    task = make_task(masks=masks, image_size=20)
    batch = eval_batch(task, info, picture(40, 60), picture(50, 30))
    for found, size in zip(task.predict(batch), ((40, 60), (50, 30)), strict=True):
        assert found.size == size
        assert len(found) == 3
        inside = found.boxes <= torch.tensor([size[1], size[0]] * 2)
        assert bool((inside & (found.boxes >= 0)).all())
        assert (found.masks is not None) == masks
        for box, mask in zip(found.boxes.tolist(), found.masks or (), strict=False):
            assert mask.size == size
            # The tiny masks fill their boxes.
            assert abs(mask.area - (box[2] - box[0]) * (box[3] - box[1])) < sum(size)


@pytest.mark.parametrize("masks", [False, True])
def test_a_prediction_does_not_depend_on_its_neighbors(
    masks: bool, info: DataInfo, make_task: MakeTask
) -> None:
    task = make_task(masks=masks)
    images = [picture(20, 30), picture(30, 20, 1), picture(20, 30, 2), picture(26, 26, 3)]
    together = task.predict(eval_batch(task, info, *images))
    for image, found in zip(images, together, strict=True):
        [alone] = task.predict(eval_batch(task, info, image))
        torch.testing.assert_close(found.boxes, alone.boxes)
        torch.testing.assert_close(found.scores, alone.scores)
        assert found.masks == alone.masks


def test_losses_get_targets_and_sizes_without_padding(
    info: DataInfo, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, tiny_objects: TinyObjects
) -> None:
    task = make_task(masks=True, augment={"flip": "none"})
    seen: list[tuple[list[Target], list[tuple[int, int]]]] = []

    def losses(
        images: Tensor, targets: list[Target], sizes: list[tuple[int, int]]
    ) -> dict[str, Tensor]:
        seen.append((targets, sizes))
        return {"only": images.mean()}

    monkeypatch.setattr(task.model, "losses", losses)
    made = task.preprocess(task.config, info, training=True)
    wide, tall = tiny_objects(1), tiny_objects(1, 1, (50, 20))
    random = SampleRandom(0, 0, torch.arange(2))
    batch = made.batch(
        made.collate([made.sample(each[0], random) for each in (wide, tall)]), random
    )
    assert list(task(batch)) == ["only"]
    [(targets, sizes)] = seen
    assert sizes == [(32, 48), (50, 20)]
    for target, images in zip(targets, (wide, tall), strict=True):
        assert isinstance(target, Target)
        assert torch.equal(target.labels, images.objects[0].labels)
        assert target.masks is not None
        assert target.masks.shape[1:] == (50, 48)
    assert float(task.loss_weight(batch)) == 2


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "boxes": ({"boxes": torch.zeros(2, 5)}, r"boxes of shape \(2, 5\) and must return \(2, 4\)"),
    "labels": ({"labels": torch.tensor([0, 2])}, r"classes outside of 0\.\.1"),
    "scores": ({"scores": torch.tensor([1.5, 0.1])}, r"scores outside of 0\.\.1"),
    "not a number": ({"scores": torch.tensor([float("nan"), 0.1])}, r"scores outside of 0\.\.1"),
    "order": ({"scores": torch.tensor([0.1, 0.2])}, "not in falling order"),
    "masks": ({"box_masks": None}, "no masks"),
    "mask shape": ({"box_masks": torch.zeros(2, 4, 5)}, "box_masks of shape"),
    "map": ({"box_masks": None, "instances": torch.zeros(3, 3)}, "instances of shape"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_detector_that_breaks_its_contract_is_refused(
    fault: str, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, images = make_task(masks=True), torch.zeros(2, 3, 16, 16)
    task.check(images)
    fine = Detected(
        torch.tensor([[0.0, 0, 4, 4]]).expand(2, 4),
        torch.tensor([0, 1]),
        torch.tensor([0.9, 0.8]),
        torch.ones(2, 4, 4),
    )
    changed, message = FAULTS[fault]
    monkeypatch.setattr(task.model, "forward", lambda images: [fine, fine._replace(**changed)])
    with pytest.raises(RecipeError, match=message):
        task.check(images)
    monkeypatch.setattr(task.model, "forward", lambda images: [fine])
    with pytest.raises(RecipeError, match="returns 1 results for 2 images"):
        task.check(images)


def test_data_without_objects_or_masks_are_refused(
    make_task: MakeTask, tiny_objects: TinyObjects
) -> None:
    images = tiny_objects(2)
    make_task().check_data(images)
    make_task(masks=True).check_data(images)
    none = [Objects.none((32, 48), masks=True)] * 2
    with pytest.raises(DataError, match="none of the 2 images has an object"):
        make_task().check_data(MemoryObjects(images.images, none, 2))
    boxes = [replace(target, masks=None) for target in images.objects]
    make_task().check_data(MemoryObjects(images.images, boxes, 2))
    with pytest.raises(DataError, match="have no masks"):
        make_task(masks=True).check_data(MemoryObjects(images.images, boxes, 2))


def test_numbers_that_are_not_finite_are_found(make_task: MakeTask, info: DataInfo) -> None:
    task = make_task(masks=True)
    [found] = task.predict(eval_batch(task, info, picture(20, 20)))
    assert task.is_finite([found])
    assert not task.is_finite([replace(found, boxes=found.boxes * float("nan"))])
    assert not task.is_finite([replace(found, scores=found.scores * float("nan"))])


PLACED = Placement((40, 60), Region(0, 0, 40, 60), (20, 30))


def detected(boxes: list[list[float]], **masks: Tensor) -> Detected:
    number = len(boxes)
    return Detected(
        torch.tensor(boxes).view(number, 4),
        torch.zeros(number, dtype=torch.int64),
        torch.linspace(0.9, 0.5, number),
        **masks,
    )


def test_boxes_are_scaled_and_clipped() -> None:
    found = restore_objects(
        detected([[1.0, 2, 10, 12], [-4, -4, 5, 5], [28, 18, 40, 40], [31, 3, 35, 8]]), PLACED
    )
    assert found.boxes.tolist() == [[2, 4, 20, 24], [0, 0, 10, 10], [56, 36, 60, 40]]
    assert found.masks is None


def test_box_masks_are_pasted() -> None:
    # The upper half of a box, and all of another.
    half = torch.zeros(2, 4, 4)
    half[0, :2] = 1
    half[1] = 1
    found = restore_objects(detected([[2.0, 2, 6, 6], [10, 10, 15, 14]], box_masks=half), PLACED)
    assert found.masks is not None
    first, second = (mask.decode() for mask in found.masks)
    expected = torch.zeros(40, 60, dtype=torch.bool)
    expected[4:8, 4:12] = True
    assert torch.equal(first, expected)
    expected[:] = False
    expected[20:28, 20:30] = True
    assert torch.equal(second, expected)


def test_masks_of_boxes_that_leave_the_image_are_not_squeezed() -> None:
    # The left half of the mask is outside, with the left half of the box.
    mask = torch.zeros(1, 4, 4)
    mask[0, :, :2] = 1
    found = restore_objects(detected([[-4.0, 0, 4, 8]], box_masks=mask), PLACED)
    assert len(found) == 0
    found = restore_objects(detected([[-4.0, 0, 4, 8]], box_masks=1 - mask), PLACED)
    assert found.masks is not None
    pixels = found.masks[0].decode()
    # Corners are rounded: beyond its edge a mask is 0.
    assert pixels[2:14, :6].all()
    assert not pixels[:, 8:].any()


def test_masks_are_taken_from_a_map() -> None:
    instances = torch.zeros(20, 30, dtype=torch.int64)
    instances[2:6, 3:9] = 1
    instances[10:12, 20:21] = 3
    boxes = [[3.0, 2, 9, 6], [0.0, 0, 1, 1], [20.0, 10, 21, 12]]
    found = restore_objects(detected(boxes, instances=instances), PLACED)
    assert len(found) == 2  # the second has no pixel
    assert found.masks is not None
    assert found.boxes.tolist() == [[6, 4, 18, 12], [40, 20, 42, 24]]
    for mask, box in zip(found.masks, found.boxes.int().tolist(), strict=True):
        expected = torch.zeros(40, 60, dtype=torch.bool)
        expected[box[1] : box[3], box[0] : box[2]] = True
        assert torch.equal(mask.decode(), expected)


def test_predictions_for_people_and_programs(info: DataInfo) -> None:
    found = restore_objects(detected([[1.0, 2, 10, 12], [3, 3, 6, 6]]), PLACED)
    task = ImageDetections.of(Path("a.png"), found.above(0.6), None, info)
    assert task.to_dict() == {
        "path": "a.png",
        "objects": [{"class": "disc", "score": 0.9, "box": [2, 4, 20, 24], "area": 360}],
        "error": None,
    }
    broken = ImageDetections.of(Path("b.png"), None, "b.png is broken", info)
    assert broken.to_dict() == {"path": "b.png", "objects": [], "error": "b.png is broken"}

    def shown(prediction: ImageDetections) -> str:
        console = Console(file=StringIO(), width=100)
        console.print(prediction)
        assert isinstance(console.file, StringIO)
        return console.file.getvalue()

    assert "0.900  disc  18 x 20 px at 2, 4" in shown(task)
    assert "no objects" in shown(ImageDetections.of(Path("c.png"), found.above(1), None, info))
    assert "none above" in shown(
        ImageDetections.of(Path("c.png"), replace(found, scores=found.scores / 4), None, info)
    )


def test_class_weights_and_teachers_are_refused(
    info: DataInfo, make_task: MakeTask, tiny_objects: TinyObjects
) -> None:
    task, images = make_task(), tiny_objects(2)
    for weights, reason in (
        ("balanced", "'balanced' needs images with class labels or masks"),
        ({"disc": 2.0}, "the task 'detection' does not weigh classes"),
    ):
        config = recipe("detection", "tiny", train={"class_weights": weights}).train
        with pytest.raises(RecipeError, match=reason):
            weigh_classes(task, config, info, images)
    distilled = recipe("detection", "tiny", train={"teacher": "some/run"})
    with pytest.raises(RecipeError, match="the task 'detection' cannot be distilled"):
        load_distiller(distilled, info, torch.device("cpu"))
    assert not task.calibrates


def test_a_run_on_images_without_objects_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = DATASETS.get("tiny_objects")
    load = kind.load

    def without(self: DataSource, split: Split) -> ImageSet:
        images = load(self, split)
        assert isinstance(images, MemoryObjects)
        none = [Objects.none((32, 48), masks=True)] * len(images)
        return replace(images, objects=none) if split == "val" else images

    monkeypatch.setattr(kind, "load", without)
    with pytest.raises(DataError, match="none of the 4 images has an object"):
        pacavit.engine.train(recipe("detection", "tiny"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
