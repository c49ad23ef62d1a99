from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

import pacavit
from pacavit.data import Objects
from pacavit.data.formats.rle import encode_masks
from pacavit.tasks.detection import DetectionMetrics, Detections

CLASSES = 3
SIZES = ("all", "small", "medium", "large")


@dataclass(frozen=True)
class Scene:
    """An image with what is in it, and what was found."""

    truth: Objects
    found: Detections


def blob_masks(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(num, 4) integer boxes -> (num, H, W) bool ellipses inside them."""
    rows, columns = torch.arange(size[0])[:, None] + 0.5, torch.arange(size[1]) + 0.5
    masks = []
    for x1, y1, x2, y2 in boxes.tolist():
        x = (columns - (x1 + x2) / 2) / ((x2 - x1) / 2)
        y = (rows - (y1 + y2) / 2) / ((y2 - y1) / 2)
        masks.append(x**2 + y**2 <= 1)
    return torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.bool)


def random_boxes(number: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """(number, 4) integer boxes of 4 to about 150 pixels inside an image."""
    longest = 5 * 30 ** torch.rand(number, 1, generator=generator)
    sides = (longest * (0.7 + 0.3 * torch.rand(number, 2, generator=generator))).round()
    sides = sides.minimum(torch.tensor([size[1], size[0]]) - 1)
    corners = torch.rand(number, 2, generator=generator) * (
        torch.tensor([size[1], size[0]]) - sides
    )
    corners = corners.floor()
    return torch.cat([corners, corners + sides], dim=1)


def random_scene(
    seed: int, *, classes: int = 3, most: int = 12, extra: int = 8, image_id: int = 0
) -> Scene:
    """Objects of several sizes, some crowds; found shifted, missed or with a wrong class."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    size = (140 + seed % 40, 180)
    number = int(draw(1) * (most + 1))
    boxes = random_boxes(number, size, generator)
    labels = (draw(number) * classes).long()
    masks = blob_masks(boxes, size)
    areas = masks.flatten(1).sum(1).float()
    truth = Objects(boxes, labels, draw(number) < 0.15, areas, size, image_id, encode_masks(masks))

    copies = torch.arange(number).repeat(2)[draw(2 * number) < 0.7]
    shifts = (
        (draw(len(copies), 4) - 0.5) * 0.5 * (boxes[copies, 2:] - boxes[copies, :2]).repeat(1, 2)
    )
    near = (boxes[copies] + shifts).round()
    near = torch.cat([near, random_boxes(extra, size, generator)])
    limits = torch.tensor([size[1], size[0]] * 2).float()
    near = near.clamp_min(0).minimum(limits)
    near[:, 2:] = near[:, 2:].maximum(near[:, :2] + 1).minimum(limits[2:])
    near[:, :2] = near[:, :2].minimum(near[:, 2:] - 1)
    found_labels = torch.cat([labels[copies], torch.zeros(extra, dtype=torch.int64)])
    wrong = draw(len(near)) < 0.2
    found_labels = torch.where(wrong, (draw(len(near)) * classes).long(), found_labels)
    scores = draw(len(near)).sort(descending=True).values
    return Scene(
        truth,
        Detections(near, found_labels, scores, size, encode_masks(blob_masks(near, size))),
    )


def score(scenes: Sequence[Scene], *, masks: bool, batch: int = 3) -> dict[str, Tensor]:
    metrics = DetectionMetrics(CLASSES, masks=masks)
    for start in range(0, len(scenes), batch):
        chosen = scenes[start : start + batch]
        metrics.update([scene.found for scene in chosen], [scene.truth for scene in chosen])
    return metrics.compute()


def original(scenes: Sequence[Scene], kind: str, most: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Precision and recall of pycocotools, with -1 for what is not defined."""
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes, 1):
        for record, rows in ((scene.truth, truth), (scene.found, found)):
            assert record.masks is not None
            for k in range(len(record)):
                x1, y1, x2, y2 = record.boxes[k].double().tolist()
                row: dict[str, Any] = {
                    "id": len(rows) + 1,
                    "image_id": number,
                    "category_id": int(record.labels[k]) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "segmentation": record.masks[k].to_json(),
                    "iscrowd": 0,
                }
                if isinstance(record, Objects):
                    row |= {"iscrowd": int(record.crowd[k]), "area": float(record.areas[k])}
                else:
                    area = (x2 - x1) * (y2 - y1)
                    row["area"] = record.masks[k].area if kind == "mask" else area
                    row["score"] = float(record.scores[k])
                rows.append(row)
    images = [
        {"id": number, "height": scene.truth.size[0], "width": scene.truth.size[1]}
        for number, scene in enumerate(scenes, 1)
    ]
    sets = []
    for rows in (truth, found):
        coco = COCO()
        coco.dataset = {
            "images": images,
            "annotations": rows,
            "categories": [{"id": label + 1} for label in range(CLASSES)],
        }
        sets.append(coco)
    with contextlib.redirect_stdout(io.StringIO()):
        for coco in sets:
            coco.createIndex()
        evaluator = COCOeval(*sets, "segm" if kind == "mask" else "bbox")
        evaluator.params.maxDets = [1, 10, most]
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator.eval["precision"], evaluator.eval["recall"]


def mean(values: NDArray[Any]) -> float:
    return float(values[values > -1].mean()) if (values > -1).any() else float("nan")


@pytest.mark.parametrize("seed", [0, 100])
@pytest.mark.parametrize("kind", ["box", "mask"])
def test_scores_equal_those_of_the_original_evaluator(kind: str, seed: int) -> None:
    scenes = [random_scene(seed + number) for number in range(9)]
    ours = score(scenes, masks=kind == "mask")
    precision, recall = original(scenes, kind, 100)
    expected = {
        "AP": mean(precision[..., 0, 2]),
        "AP50": mean(precision[0, ..., 0, 2]),
        "AP75": mean(precision[5, ..., 0, 2]),
        **{f"AP_{size}": mean(precision[..., SIZES.index(size), 2]) for size in SIZES[1:]},
        **{f"AR_{most}": mean(recall[..., 0, k]) for k, most in enumerate((1, 10, 100))},
    }
    assert 0.05 < expected["AP"] < 0.95
    for name, value in expected.items():
        assert float(ours[f"{kind}_{name}"]) == pytest.approx(value, abs=1e-6), name
    for label in range(CLASSES):
        assert float(ours["AP_per_class"][label]) == pytest.approx(
            mean(precision[:, :, label, 0, 2]), abs=1e-6
        )
        assert float(ours["AP50_per_class"][label]) == pytest.approx(
            mean(precision[0, :, label, 0, 2]), abs=1e-6
        )
        assert float(ours["AR_per_class"][label]) == pytest.approx(
            mean(recall[:, label, 0, 2]), abs=1e-6
        )
    np.testing.assert_allclose(ours["precision"], precision[0, :, :, 0, 2].T, atol=1e-6)
    objects = torch.cat([scene.truth.labels[~scene.truth.crowd] for scene in scenes])
    assert torch.equal(ours["support_per_class"], objects.bincount(minlength=CLASSES))


def test_more_than_100_detections_count_where_they_should() -> None:
    scenes = [random_scene(number, most=160, extra=150) for number in range(3)]
    assert max(len(scene.found) for scene in scenes) > 250
    ours = score(scenes, masks=False)
    precision, recall = original(scenes, "box", 300)
    assert float(ours["box_AP_300"]) == pytest.approx(mean(precision[..., 0, 2]), abs=1e-6)
    assert float(ours["box_AP50_300"]) == pytest.approx(mean(precision[0, ..., 0, 2]), abs=1e-6)
    assert float(ours["box_AR_300"]) == pytest.approx(mean(recall[..., 0, 2]), abs=1e-6)
    assert float(ours["box_AP_300"]) != pytest.approx(float(ours["box_AP"]), abs=1e-6)


def perfect(scene: Scene) -> Scene:
    """The same image with each object found exactly."""
    truth = scene.truth[~scene.truth.crowd]
    scores = torch.linspace(1, 0.6, len(truth))
    return Scene(truth, Detections(truth.boxes, truth.labels, scores, truth.size, truth.masks))


@pytest.mark.parametrize("masks", [False, True])
def test_perfect_predictions(masks: bool) -> None:
    scenes = [perfect(random_scene(number)) for number in range(6)]
    ours = score(scenes, masks=masks)
    for name, value in ours.items():
        if value.ndim == 0 and "AR_" not in name and name != "best_F1_threshold":
            assert float(value) == pytest.approx(1), name
    assert float(ours["best_F1_threshold"]) == pytest.approx(0.6)
    counts = ours["support_per_class"]
    assert torch.equal(ours["confusion"], torch.diag(torch.cat([counts, torch.zeros(1).long()])))


def nothing(scene: Scene) -> Scene:
    size = scene.truth.size
    empty = Detections(
        torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0), size, ()
    )
    return Scene(scene.truth, empty)


@pytest.mark.parametrize("masks", [False, True])
def test_nothing_found_scores_0(masks: bool) -> None:
    scenes = [nothing(random_scene(number)) for number in range(4)]
    ours = score(scenes, masks=masks)
    for name, value in ours.items():
        if value.ndim == 0 and name != "best_F1_threshold":
            assert float(value) == 0, name
    counts = ours["support_per_class"]
    assert ours["confusion"][:CLASSES, CLASSES].equal(counts)
    assert int(ours["confusion"].sum()) == int(counts.sum())


@pytest.mark.parametrize("masks", [False, True])
def test_classes_without_objects_are_left_out_of_means(masks: bool) -> None:
    scenes = [random_scene(number) for number in range(6)]
    rest = [
        Scene(scene.truth[scene.truth.labels != 1], scene.found)  # still found, though
        for scene in scenes
    ]
    ours = score(rest, masks=masks)
    per_class = ours["AP_per_class"]
    assert per_class.isnan().tolist() == [False, True, False]
    kind = "mask" if masks else "box"
    assert float(ours[f"{kind}_AP"]) == pytest.approx(float(per_class[[0, 2]].mean()))
    assert (ours["precision"][1] == -1).all()
    assert int(ours["support_per_class"][1]) == 0


def test_sizes_that_no_object_has_are_left_out() -> None:
    boxes = torch.tensor([[2.0, 2, 10, 12]])
    areas = torch.tensor([80.0])
    label = torch.tensor([0])
    truth = Objects(boxes, label, label.bool(), areas, (20, 20), 1)
    found = Detections(boxes, label, torch.tensor([0.9]), (20, 20))
    ours = score([Scene(truth, found)], masks=False)
    assert float(ours["box_AP_small"]) == pytest.approx(1)
    assert "box_AP_medium" not in ours
    assert "box_AP_large" not in ours


@pytest.mark.parametrize("masks", [False, True])
def test_the_order_of_images_and_the_batches_do_not_matter(masks: bool) -> None:
    scenes = [random_scene(number) for number in range(8)]
    first = score(scenes, masks=masks, batch=3)
    second = score(scenes[::-1], masks=masks, batch=1)
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, equal_nan=True)


def one(box: tuple[float, ...], label: int, value: float) -> tuple[Tensor, int, float]:
    return torch.tensor(box), label, value


def test_confusion_counts_hits_wrong_classes_misses_and_false_alarms() -> None:
    truth_rows = [
        one((0, 0, 10, 10), 0, 0),
        one((20, 0, 30, 10), 1, 0),
        one((40, 0, 50, 10), 2, 0),
        one((60, 0, 90, 30), 1, 1),  # a crowd
    ]
    found_rows = [
        one((0, 0, 10, 9), 0, 0.9),  # right
        one((1, 0, 10, 10), 0, 0.8),  # again: a false alarm
        one((20, 0, 30, 10), 2, 0.7),  # wrong class
        one((62, 2, 70, 9), 1, 0.6),  # in the crowd: does not count
        one((62, 2, 70, 9), 0, 0.5),  # another class in the crowd: a false alarm
        one((0, 20, 9, 30), 2, 0.4),  # on nothing, and below the threshold
    ]
    boxes = torch.stack([row[0] for row in truth_rows])
    labels = torch.tensor([row[1] for row in truth_rows])
    crowd = torch.tensor([bool(row[2]) for row in truth_rows])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    truth = Objects(boxes, labels, crowd, areas, (40, 100), 1)
    found = Detections(
        torch.stack([row[0] for row in found_rows]),
        torch.tensor([row[1] for row in found_rows]),
        torch.tensor([row[2] for row in found_rows]),
        (40, 100),
    )
    metrics = DetectionMetrics(CLASSES, masks=False)
    metrics.update([found], [truth])
    ours = metrics.compute()
    # The best F1 is that of the first detection alone: 2 * 1 / (1 + 3).
    assert float(ours["best_F1"]) == pytest.approx(0.5)
    assert float(ours["best_F1_threshold"]) == pytest.approx(0.9)
    assert ours["confusion"].tolist() == [
        [1, 0, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
    ]
    # With a hit of the lowest score, all detections pass the threshold.
    last = torch.tensor([[40.0, 0, 50, 10]])
    more = replace(
        found,
        boxes=torch.cat([found.boxes, last, last + torch.tensor([20.0, 0, 20, 0])]),
        labels=torch.cat([found.labels, torch.tensor([2, 1])]),
        scores=torch.cat([found.scores, torch.tensor([0.3, 0.2])]),
    )
    everything = replace(truth, crowd=torch.zeros(4, dtype=torch.bool))
    metrics.reset()
    metrics.update([more], [everything])
    assert metrics.compute()["confusion"].sum() >= 4


def test_best_f1_takes_equal_scores_together() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    labels = torch.tensor([0, 0])
    truth = Objects(boxes, labels, labels.bool(), torch.full((2,), 100.0), (20, 40), 1)
    found = Detections(
        torch.tensor([[0.0, 0, 10, 10], [0, 12, 8, 19], [20, 0, 30, 10]]),
        torch.zeros(3, dtype=torch.int64),
        torch.tensor([0.7, 0.7, 0.7]),
        (20, 40),
    )
    ours = score([Scene(truth, found)], masks=False)
    assert float(ours["best_F1"]) == pytest.approx(2 * 2 / (3 + 2))
    assert ours["confusion"].tolist()[0][0] == 2
    assert ours["confusion"].tolist()[CLASSES][0] == 1


@pytest.mark.slow
def test_several_processes_score_all_images(tmp_path: Path) -> None:
    scenes = [random_scene(number) for number in range(6)]
    data, out = tmp_path / "scenes.pt", tmp_path / "scores.pt"
    torch.save(([scene.found for scene in scenes], [scene.truth for scene in scenes]), data)
    script = Path(__file__).with_name("several_processes.py")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [sys.executable, *launcher, str(script), str(data), str(out)],
        env={**os.environ, "PYTHONPATH": str(Path(pacavit.__path__[0]).parent)},
        check=True,
        timeout=300,
    )
    alone = score(scenes, masks=True)
    for found in torch.load(out, weights_only=True):
        for name, value in alone.items():
            torch.testing.assert_close(found[name], value, equal_nan=True)
