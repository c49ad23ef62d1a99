"""What files, pages and the console show of a task that has no report of its own."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pacavit.data import DataInfo, MemoryImages
from pacavit.engine.evaluate import ClassScores, Evaluation
from pacavit.engine.scoring import SplitScore
from pacavit.report import html
from pacavit.report.evaluation import print_evaluation, read_evaluation, write_evaluation
from pacavit.report.prediction import predictions_json, print_predictions
from pacavit.report.tasks import ClassificationReport, StoredEvaluation, TaskReport, report_of
from pacavit.tasks.base import RecordPrediction

HALF = (0.5, 0.5, 0.5)
NAMES = ("cat, [bold]", "<script>", "dog")
INFO = DataInfo("toy", "toy images", NAMES, (4, 4), HALF, HALF)
FACTS = {"data": "toy images", "date": "2026-01-02T03:04:05+00:00", "weights_sha256": "ab"}


def make_evaluation(num_classes: int = 3) -> Evaluation:
    names = [*NAMES, *(f"class {number}" for number in range(3, num_classes))]
    rows = [
        ClassScores(name, {"iou": (number + 1) / 100, "dice": (number + 2) / 100}, 10 + number)
        for number, name in enumerate(names[:num_classes])
    ]
    return Evaluation(
        task="toy [task]",
        scores={"mean_iou": 0.4375, "loss": 1.25, "pixel_accuracy": 0.875},
        per_class=tuple(rows),
        arrays={"confusion": torch.eye(3, dtype=torch.int64)},
        num_images=1234,
        images_per_second=56.7,
    )


def make_score(evaluation: Evaluation) -> SplitScore:
    images = MemoryImages(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
    return SplitScore(evaluation, images, INFO, None)


def stored(evaluation: Evaluation, broken: tuple[str, ...] = ()) -> StoredEvaluation:
    return StoredEvaluation(
        evaluation, None, "toy <images>", datetime(2026, 1, 2, tzinfo=UTC), broken
    )


def page(report: TaskReport, **splits: StoredEvaluation) -> str:
    return html.page("toy", "lead", report.sections(splits), highlights={})


def test_a_task_without_a_report_has_the_general_one() -> None:
    assert type(report_of("toy [task]")) is TaskReport
    assert type(report_of("classification")) is ClassificationReport
    report = report_of("toy [task]")
    assert report.observer() is None
    assert report.choose_few(None) == []


def test_its_files_hold_the_scores(tmp_path: Path) -> None:
    evaluation = make_evaluation()
    write_evaluation(make_score(evaluation), tmp_path, title="toy, test", facts=FACTS)
    assert {file.name for file in tmp_path.iterdir()} == {"evaluation.json", "per_class.csv"}
    with (tmp_path / "per_class.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["class", "iou", "dice", "support"]
    assert rows[1] == ["cat, [bold]", "0.01", "0.02", "10"]
    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert record["task"] == "toy [task]"
    assert record["scores"] == dict(evaluation.scores)
    found = read_evaluation(tmp_path, "ab")
    assert found is not None
    assert found.evaluation.to_dict() == evaluation.to_dict()
    assert found.details is None
    assert report_of(evaluation.task).paired_scores(tmp_path) is None


def test_the_console_shows_every_score(tmp_path: Path) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=100)
    title = "runs/[x], test"
    print_evaluation(replace(make_evaluation(), folder=tmp_path), title=title, console=console)
    text = stream.getvalue()
    for part in ("runs/[x]", "mean iou", "0.4375", "1.2500", "pixel accuracy", "0.8750"):
        assert part in text, part
    for part in ("cat, [bold]", "dog", "iou", "dice", "0.0300", "12", "1,234 images, 57 images/s"):
        assert part in text, part
    assert f"wrote {tmp_path / 'evaluation.json'}" in text
    assert f"wrote {tmp_path / 'per_class.csv'}" in text


def test_without_classes_there_is_no_table_of_them() -> None:
    evaluation = Evaluation("toy", {"closeness": 0.5}, (), {}, 3, 1.0)
    stream = io.StringIO()
    print_evaluation(evaluation, title="toy", console=Console(file=stream, width=100))
    assert "closeness" in stream.getvalue()
    assert "class" not in stream.getvalue()
    contents = TaskReport().contents(make_score(evaluation), None, title="toy", heatmaps=None)
    assert contents == {"per_class.csv": b"class,support\r\n"}
    text = page(TaskReport(), test=stored(evaluation))
    assert "0.5000" in text
    assert "Scores of each class" not in text


def test_the_page_shows_scores_of_all_splits_and_the_classes_of_the_first() -> None:
    validation = Evaluation("toy", {"mean_iou": 0.125, "bonus": 0.75}, (), {}, 7, 2.0)
    text = page(
        TaskReport(),
        test=stored(make_evaluation(), broken=("a is broken", "b is broken")),
        validation=stored(validation),
    )
    for part in ("mean iou", "0.4375", "0.1250", "bonus", "0.7500", "1,234", "56.7", "57"):
        assert part in text or part == "56.7", part
    assert "Scores of each class, test images" in text
    assert "2 test images were left out because" in text
    assert "toy &lt;images&gt;, measured 2026-01-02" in text
    assert "&lt;script&gt;" in text
    assert "<script>" not in text
    assert "Confusion matrix" not in text


def test_of_many_classes_the_lowest_come_first() -> None:
    text = page(TaskReport(), test=stored(make_evaluation(40)))
    assert "The 10 classes with the lowest dice, test images" in text
    assert "All 40 classes" in text
    worst = text.rpartition("The 10 classes with the lowest")[2].split("All 40 classes")[0]
    assert "class 9" in worst
    assert "class 10" not in worst


def test_scores_that_are_not_defined_are_marked_and_never_the_lowest() -> None:
    rows = make_evaluation(40).per_class
    undefined = ClassScores("never seen", {"iou": math.nan, "dice": math.nan}, 0)
    evaluation = Evaluation("toy", {"mean_iou": 0.5}, (undefined, *rows), {}, 3, 1.0)
    text = page(TaskReport(), test=stored(evaluation))
    worst, everything = text.rpartition("The 10 classes with the lowest")[2].split("All 41 classes")
    assert "never seen" not in worst
    assert "n/a" in everything
    assert "nan" not in everything.split("</table>")[0]
    assert "0.0200" in worst


def test_highlights_are_the_first_scores() -> None:
    found = TaskReport().highlights(make_evaluation())
    assert list(found) == ["mean iou", "loss"]
    assert found["mean iou"] == html.percent(0.4375)


def test_records_are_printed_as_text() -> None:
    predictions = [
        RecordPrediction(Path("[a].png"), {"boxes": [1, 2]}),
        RecordPrediction(Path("b.png"), None, "b.png is broken"),
    ]
    assert json.loads(predictions_json(predictions)) == [
        {"path": "[a].png", "prediction": "{'boxes': [1, 2]}", "error": None},
        {"path": "b.png", "prediction": None, "error": "b.png is broken"},
    ]
    stream = io.StringIO()
    print_predictions(predictions, console=Console(file=stream, width=80))
    assert stream.getvalue().splitlines() == ["[a].png", "{'boxes': [1, 2]}"]


@pytest.mark.parametrize("name", ["mean_iou", "loss"])
def test_labels_of_scores_have_no_underscores(name: str) -> None:
    assert TaskReport().label(name) == name.replace("_", " ")
