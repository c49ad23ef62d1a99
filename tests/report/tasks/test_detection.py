"""The report of detection: hits and mistakes of images, files, pictures and sections."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console
from torch import Tensor

from pacavit import api
from pacavit.data import Batch, DataInfo, MemoryObjects, ObjectInfo, Objects, Shapes
from pacavit.data.formats.rle import encode_masks
from pacavit.engine.evaluate import Measurement, as_evaluation
from pacavit.engine.scoring import SplitScore
from pacavit.errors import PacavitError
from pacavit.report.evaluation import print_evaluation
from pacavit.report.tasks import DetectionReport, StoredEvaluation, report_of
from pacavit.report.tasks.detection.examples import KINDS, compared_marks
from pacavit.report.tasks.detection.files import DetectionWriter
from pacavit.report.tasks.detection.observe import DetectionObserver, ImageCounts
from pacavit.report.tasks.sampling import NUM_EXAMPLES
from pacavit.tasks.detection import DetectionMetrics, Detections, ImageDetections
from pacavit.tasks.detection.pictures import Mark, detection_marks, draw_marks
from pacavit.tasks.detection.results import result_records, results_json

NAMES = ("cell", "plate")
COLORS = ((250, 60, 0), (0, 90, 250))
SIZE = (40, 60)
INFO = DataInfo(
    "slides", "slides", NAMES, SIZE, (0.5,) * 3, (0.2,) * 3, objects=ObjectInfo((5, 2), COLORS)
)


def filled(boxes: Tensor) -> Tensor:
    """(num, 4) -> masks that fill the boxes."""
    masks = torch.zeros(len(boxes), *SIZE, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    return masks


def objects(rows: list[tuple[int, list[float]]], crowd: tuple[bool, ...] = ()) -> Objects:
    boxes = torch.tensor([box for _, box in rows]).reshape(-1, 4)
    labels = torch.tensor([label for label, _ in rows], dtype=torch.int64)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    crowds = torch.tensor(crowd or (False,) * len(rows), dtype=torch.bool)
    return Objects(boxes, labels, crowds, areas, SIZE, 0, encode_masks(filled(boxes)))


def detections(rows: list[tuple[int, float, list[float]]]) -> Detections:
    boxes = torch.tensor([box for _, _, box in rows]).reshape(-1, 4)
    labels = torch.tensor([label for label, _, _ in rows], dtype=torch.int64)
    scores = torch.tensor([score for _, score, _ in rows])
    return Detections(boxes, labels, scores, SIZE, encode_masks(filled(boxes)))


TRUTH = objects([(0, [2, 2, 12, 12]), (1, [20, 5, 40, 25]), (0, [45, 20, 58, 38])])
FOUND = detections(
    [
        (0, 0.9, [2, 3, 12, 12]),  # a hit
        (0, 0.8, [3, 2, 12, 12]),  # the same object again
        (0, 0.7, [20, 5, 40, 25]),  # of the other class
        (1, 0.4, [21, 5, 41, 25]),  # a hit
        (1, 0.1, [45, 20, 58, 38]),  # of the other class
    ]
)


@pytest.mark.parametrize("masks", [False, True])
def test_hits_misses_and_false_alarms_depend_on_the_score(masks: bool) -> None:
    observer = DetectionObserver(masks=masks)
    observer.add(0, FOUND, TRUTH)
    [result] = observer.results
    assert result.counts(0.5) == ImageCounts(hits=1, misses=2, false_alarms=2)
    assert result.counts(0.3) == ImageCounts(hits=2, misses=1, false_alarms=2)
    assert result.counts(0.95) == ImageCounts(hits=0, misses=3, false_alarms=0)
    assert result.counts(0.3).f1 == pytest.approx(4 / 7)
    level = observer.level(0.3)
    assert (level.precision, level.recall, level.f1) == (0.5, 2 / 3, pytest.approx(4 / 7))
    marks = compared_marks(result, TRUTH, INFO, 0.3)
    kinds = {style: kind for kind, (_, style) in KINDS.items()}
    assert [kinds[mark.style] for mark in marks] == ["false alarm"] * 2 + ["miss"] + ["hit"] * 2
    assert [mark.text for mark in marks] == [
        "cell 0.80",
        "cell 0.70",
        "cell",
        "cell 0.90",
        "plate 0.40",
    ]


def test_crowd_regions_neither_count_nor_make_false_alarms() -> None:
    truth = objects([(0, [0, 0, 30, 30]), (0, [40, 0, 50, 10])], crowd=(True, False))
    found = detections([(0, 0.9, [2, 2, 10, 10]), (1, 0.8, [2, 2, 10, 10])])
    observer = DetectionObserver(masks=False)
    observer.add(0, found, truth)
    assert observer.results[0].counts(0.5) == ImageCounts(hits=0, misses=1, false_alarms=1)
    [alarm, miss] = compared_marks(observer.results[0], truth, INFO, 0.5)
    assert (alarm.text, miss.text) == ("plate 0.80", "cell")


def test_images_without_objects_are_right_if_nothing_is_found() -> None:
    observer = DetectionObserver(masks=False)
    observer.add(0, detections([]), objects([]))
    observer.add(1, FOUND, objects([]))
    f1 = [result.counts(0.5).f1 for result in observer.results]
    assert f1 == [1.0, 0.0]
    worst, best, others = observer.chosen(0.5)
    assert [result.position for result in (*worst, *best, *others)] == [1]  # 0 shows nothing


def scored(task: str, num: int = 14) -> tuple[SplitScore, DetectionObserver]:
    """Images whose objects are found with errors that grow with their positions."""
    generator = torch.Generator().manual_seed(0)
    truths, founds = [], []
    for position in range(num):
        rows = [(k % 2, [4.0 + 18 * k, 5.0, 16.0 + 18 * k, 30.0]) for k in range(1 + position % 3)]
        truth = replace(objects(rows), image_id=100 + position)
        shift = torch.rand(len(truth), 1, generator=generator) * position / 2
        boxes = (truth.boxes + shift).clamp_max(40)
        scores = torch.rand(len(truth), generator=generator).sort(descending=True).values
        founds.append(Detections(boxes, truth.labels, scores, SIZE, encode_masks(filled(boxes))))
        truths.append(truth)
    images = MemoryObjects(torch.full((num, 3, *SIZE), 90, dtype=torch.uint8), truths, 2)
    metrics = DetectionMetrics(2, masks=task != "detection")
    observer = report_of(task).observer()
    assert isinstance(observer, DetectionObserver)
    metrics.update(founds, truths)
    observer(founds, Batch(torch.zeros(num, 3, 1, 1), truths, torch.arange(num)))
    measured = Measurement(metrics.compute(), num, 10.0)
    evaluation = as_evaluation(task, measured, measured.metrics, NAMES)
    return SplitScore(evaluation, images, INFO, None), observer


@pytest.mark.parametrize("task", ["detection", "instance_segmentation"])
def test_files_sections_and_console_of_an_evaluation(task: str, tmp_path: Path) -> None:
    score, observer = scored(task)
    report = report_of(task)
    assert isinstance(report, DetectionReport)
    contents = report.contents(score, observer, title="slides, test", heatmaps=None)
    assert set(contents) == set(report.files)
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    evaluation, details = score.evaluation, report.read_details(tmp_path)
    limit = evaluation.scores["best_F1_score"]
    assert details.score == limit
    rows = list(csv.DictReader(io.StringIO(contents["images.csv"].decode())))
    assert [row["image"] for row in rows] == [f"slides #{n}" for n in range(14)]
    totals = {name: sum(int(row[name]) for row in rows) for name in ("objects", "hits", "misses")}
    assert totals["objects"] == totals["hits"] + totals["misses"] == 27
    assert observer.level(limit).f1 == pytest.approx(evaluation.scores["best_F1"], abs=1e-6)
    # The matrix is of the same detections as the counts of images.
    confusion = evaluation.arrays["confusion"]
    assert int(confusion.diagonal()[:2].sum()) == totals["hits"]
    assert len(details.worst) == len(details.best) == len(details.others) == NUM_EXAMPLES
    f1 = sorted(float(row["f1"]) for row in rows)
    assert [round(each.f1, 6) for each in details.worst] == f1[:NUM_EXAMPLES]
    assert [round(each.f1, 6) for each in details.best] == f1[::-1][:NUM_EXAMPLES]
    paired = report.paired_scores(tmp_path)
    assert paired.values.tolist() == [float(row["f1"]) for row in rows]
    stored = StoredEvaluation(evaluation, details, "slides", datetime.now(UTC))
    sections = report.sections({"test": stored, "validation": stored})
    titles = ["Results", "Precision and recall", "Confusion matrix", "Images"]
    assert [section.title for section in sections] == titles
    text = "".join(str(part) for section in sections for part in section.parts)
    for part in ("plate", "best F1", f"score of at least {limit:.2f}", "border-style: dotted"):
        assert part in text
    assert ("test, mask" in text) == (task != "detection")
    assert "AP at 300" not in text  # no image has more than 100 objects
    console = Console(width=120, record=True, file=io.StringIO())
    print_evaluation(
        replace(evaluation, images_per_second=float("nan")), title="t", console=console
    )
    printed = console.export_text()
    assert "AR at 100" in printed
    assert "images/s" not in printed


def test_scores_at_300_detections_are_shown_where_they_differ() -> None:
    score, _ = scored("detection")
    scores = {**score.evaluation.scores, "box_AP_300": 0.99}
    tables = DetectionReport().card_tables(replace(score.evaluation, scores=scores))
    names = [row[0] for row in tables[0][1]]
    assert "AP at 300" in names
    assert "AP50 at 300" not in names


def test_a_split_in_which_nothing_is_right_has_a_report() -> None:
    truths = [replace(objects([(0, [2, 2, 12, 12])]), image_id=k) for k in range(2)]
    founds = [detections([]), detections([(0, 0.9, [30, 30, 39, 39])])]
    images = MemoryObjects(torch.zeros(2, 3, *SIZE, dtype=torch.uint8), truths, 2)
    metrics, observer = DetectionMetrics(2, masks=False), DetectionObserver(masks=False)
    metrics.update(founds, truths)
    for position in range(2):
        observer.add(position, founds[position], truths[position])
    measured = Measurement(metrics.compute(), 2, 1.0)
    evaluation = as_evaluation("detection", measured, measured.metrics, NAMES)
    report = DetectionReport()
    contents = report.contents(
        SplitScore(evaluation, images, INFO, None), observer, title="", heatmaps=None
    )
    assert contents["precision_recall.png"].startswith(b"\x89PNG")
    assert evaluation.scores["box_AP"] == 0


@pytest.fixture
def rendered() -> Shapes:
    return Shapes(val_size=30, test_size=60, target="instances")


@pytest.mark.parametrize("task", ["detection", "instance_segmentation"])
def test_a_file_of_any_tool_has_the_scores_of_pycocotools(
    task: str, rendered: Shapes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = task != "detection"
    images, info = rendered.load("test"), rendered.info
    assert info.objects is not None
    generator = torch.Generator().manual_seed(1)
    records, annotations, listed = [], [], []
    for position in range(len(images)):
        truth = images.target(position)
        assert truth.masks is not None
        listed.append({"id": truth.image_id, "height": truth.size[0], "width": truth.size[1]})
        for box, label, area, mask in zip(
            truth.boxes.tolist(), truth.labels.tolist(), truth.areas, truth.masks, strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": truth.image_id,
                    "category_id": info.objects.category_ids[label],
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "area": float(area),
                    "iscrowd": 0,
                    "segmentation": mask.to_json(),
                }
            )
        moved = truth.boxes + torch.randn(truth.boxes.shape, generator=generator) * 1.5
        boxes = torch.cat([moved[:, :2], moved[:, 2:].maximum(moved[:, :2] + 1)], 1)
        labels = truth.labels.clone()
        labels[torch.rand(len(labels), generator=generator) < 0.2] = 0
        scores = torch.rand(len(labels), generator=generator).sort(descending=True).values
        shifted = tuple(
            encode_masks(mask.decode().roll((1, 1), (0, 1))[None])[0] for mask in truth.masks
        )
        found = Detections(boxes, labels, scores, truth.size, shifted if masks else None)
        records += result_records(found, info, truth.image_id, None)
    file = tmp_path / "tool.json"
    file.write_bytes(results_json(records))
    options = ["data.val_size=30", "data.options={test_size=60}"]
    found_scores = api.evaluate_predictions(file, dataset="shapes", set=options).scores
    oracle = COCO()
    oracle.dataset = {
        "images": listed,
        "annotations": annotations,
        "categories": [{"id": number, "name": str(number)} for number in info.objects.category_ids],
    }
    oracle.createIndex()
    for kind, coco_kind in (("box", "bbox"), ("mask", "segm"))[: 1 + masks]:
        made = COCOeval(oracle, oracle.loadRes(json.loads(file.read_text())), coco_kind)
        made.evaluate()
        made.accumulate()
        made.summarize()
        for name, place in (("AP", 0), ("AP50", 1), ("AP75", 2), ("AR_1", 6), ("AR_100", 8)):
            assert found_scores[f"{kind}_{name}"] == pytest.approx(made.stats[place], abs=1e-4)
            assert 0.05 < made.stats[place] < 0.95
    capsys.readouterr()


def make(path: str, found: Detections | None) -> ImageDetections:
    return ImageDetections.of(Path(path), found, None if found else "broken", INFO)


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (("000000397133.jpg", "a/000000037777.png"), [397133, 37777]),
        (("7.jpg", "b/007.jpg"), [0, 1]),  # the same number twice
        (("7.jpg", "x.jpg"), [0, 1]),
        (("٣.jpg", "4.jpg"), [0, 1]),  # digits of other scripts
    ],
)
def test_numbers_of_images_are_those_of_their_files(
    names: tuple[str, ...], numbers: list[int], tmp_path: Path
) -> None:
    writer = DetectionWriter(tmp_path / "out", INFO, overwrite=False)
    for name in names:
        writer.add(make(name, FOUND), lambda: torch.zeros(3, *SIZE, dtype=torch.uint8))
    writer.add(make("c/9.jpg", None), lambda: pytest.fail("there is no picture"))
    writer.finish()
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert list(dict.fromkeys(record["image_id"] for record in records)) == numbers
    assert len(records) == 2 * len(FOUND)  # those with low scores too
    assert {record["category_id"] for record in records} == {5, 2}
    pictures = sorted(path.name for path in (tmp_path / "out").glob("*.overlay.jpg"))
    assert len(pictures) == 2


def test_places_in_use_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PacavitError, match="is a file"):
        DetectionWriter(tmp_path / "file", INFO, overwrite=True)
    with pytest.raises(PacavitError, match="not empty; give --overwrite"):
        DetectionWriter(tmp_path, INFO, overwrite=False)


@pytest.mark.parametrize("size", [(16, 12), (40, 60), (900, 1400)])
def test_pictures_have_boxes_masks_and_names_at_any_size(size: tuple[int, int]) -> None:
    image = torch.full((3, *size), 90, dtype=torch.uint8)
    found = replace(FOUND.above(0.85), size=size, masks=None)
    whole = replace(found, boxes=torch.tensor([[2.0, 2.0, size[1] - 2.0, size[0] - 2.0]]))
    picture = draw_marks(image, detection_marks(whole, INFO))
    assert max(picture.shape[1:]) == max(480, *size)
    color = torch.tensor(COLORS[0], dtype=torch.uint8)[:, None, None]
    drawn = (picture == color).all(0)
    assert drawn.any(0).float().mean() > 0.5  # along the whole width
    inside = picture[:, picture.shape[1] // 2, picture.shape[2] // 2]
    assert inside.tolist() == [90, 90, 90]


def test_lines_of_hits_and_mistakes_differ_without_color() -> None:
    image = torch.full((3, 200, 200), 90, dtype=torch.uint8)
    lengths = []
    for style in ("solid", "dashed", "dotted"):
        mark = Mark((20.0, 20.0, 180.0, 180.0), (250, 250, 250), style=style)
        row = draw_marks(image, [mark], 200)[0, 20, 25:175]
        lengths.append(float((row == 250).float().mean()))
    assert lengths[0] == 1
    assert 0.5 < lengths[1] < 0.9
    assert lengths[2] < 0.8
    assert lengths[1] > lengths[2]


def test_masks_are_filled_in_the_color_of_their_class() -> None:
    image = torch.full((3, *SIZE), 90, dtype=torch.uint8)
    [mask] = encode_masks(filled(torch.tensor([[10.0, 10.0, 50.0, 30.0]])))
    mark = Mark((10.0, 10.0, 50.0, 30.0), (250, 60, 0), mask=mask)
    picture = draw_marks(image, [mark])
    red, green, blue = picture[:, picture.shape[1] // 2, picture.shape[2] // 2].tolist()
    assert (red, green, blue) == (154, 78, 54)  # 40 % of the color
    assert picture[:, 2, 2].tolist() == [90, 90, 90]
