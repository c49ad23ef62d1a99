"""Multi-label classification from a CSV file: every verb knows the task."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from pacavit import api
from pacavit.data import render_scenes
from pacavit.data.sources.scenes import SHAPE_NAMES
from pacavit.engine import load_model
from pacavit.report.publishing.card import model_card
from pacavit.report.tasks import MultilabelReport
from pacavit.utils.command import pacavit_command
from pacavit_cli.main import main

FAST = ["train.epochs=2", "train.batch_size=16", "task.image_size=32"]
FAST += ["data.options.image_size=32", "data.num_workers=0"]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of shapes, and a file that names the shapes in each."""
    folder = tmp_path_factory.mktemp("scenes")
    scenes = render_scenes(torch.arange(80), size=32, seed=0)
    rows = []
    for number, (image, classes) in enumerate(zip(scenes.images, scenes.classes, strict=True)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
        names = {SHAPE_NAMES[label] for label in classes.tolist() if label >= 0}
        rows.append((f"{number}.png", ";".join(sorted(names))))
    path = folder / "labels.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "labels"), *rows])
    return path


@pytest.fixture(scope="module")
def run(labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("multilabel") / "run"
    return api.train("multilabel_nano", out, data=labels, set=FAST)


def test_training_measures_and_reports_the_task(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [0 <= row["val_mAP"] <= 1 for row in rows] == [True, True]
    page = (run / "report.html").read_text()
    assert "validation mAP" in page
    assert "Thresholds with the highest F1 on validation images" in page


def test_evaluate_writes_scores_thresholds_and_probabilities(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run)]) == 0
    printed = capsys.readouterr().out
    for name in ("mAP", "average precision", "exact match"):
        assert name in printed
    folder = run / "evaluation-test"
    record = json.loads((folder / "evaluation.json").read_text())
    assert record["task"] == "multilabel"
    assert set(record["scores"]) == {"mAP", "f1_macro", "f1_micro", "exact_match"}
    thresholds = read(folder / "thresholds.csv")
    assert [row["class"] for row in thresholds] == [row["name"] for row in record["per_class"]]
    predictions = read(folder / "predictions.csv")
    assert len(predictions) == record["num_images"]
    assert "F1 at this threshold" in (run / "report.html").read_text()


def test_predict_names_all_labels(
    run: Path, labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(run), str(labels.with_name("0.png")), "--json"]) == 0
    [record] = json.loads(capsys.readouterr().out)
    assert record["error"] is None
    assert len(record["top"]) == 5
    expected = [each["class"] for each in record["top"] if each["probability"] >= 0.5]
    assert record["labels"][: len(expected)] == expected
    assert main(["predict", str(run), str(labels.with_name("0.png"))]) == 0
    assert "labels: " in capsys.readouterr().out


def test_explain_shows_any_class_and_its_measurement_is_refused(
    run: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = str(labels.with_name("0.png")), str(tmp_path / "why")
    assert main(["explain", str(run), image, "--class", "star", "--out", out]) == 0
    capsys.readouterr()
    assert main(["explain-evaluate", str(run), "--out", str(tmp_path / "measured")]) == 2
    error = capsys.readouterr().err
    assert "explanations are measured with one class per image" in error
    assert error.count("\n") == 1


def test_the_card_has_the_scores_of_the_task(run: Path) -> None:
    model = load_model(run)
    text = model_card(
        "shapes",
        model,
        api.evaluate(run),
        environment={"cpu": "some", "threads": 2, "versions": {}},
        seconds=60,
        evaluation_command=pacavit_command("evaluate", "shapes"),
    )
    assert "test mAP 0." in text
    assert "| class | average precision | precision | recall | F1 | images |" in text


def test_other_data_with_some_of_the_classes_can_be_measured(
    run: Path, labels: Path, tmp_path: Path
) -> None:
    rows = read(labels)[:19]
    path = labels.with_name("some.csv")
    lines = [("image", "labels", "split")]
    lines += [(row["image"], "star" if i % 2 else "", "test") for i, row in enumerate(rows)]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(lines)
    found = api.evaluate(run, data=path, out=tmp_path / "other")
    assert found.num_images == 19
    assert {row.name: row.support for row in found.per_class}["star"] == 9
    assert found.scores["mAP"] >= 0


def test_comparisons_use_the_scores_of_the_task(labels: Path, tmp_path: Path) -> None:
    comparison = api.compare(
        "multilabel_nano", "model.clustering=conv,grid", tmp_path / "out", data=labels, set=FAST
    )
    assert list(comparison.columns) == ["mAP", "F1 (macro)", "exact match"]
    assert comparison.rows[1].difference is not None
    assert "exact match" in (tmp_path / "out" / "comparison.html").read_text()


def test_an_image_is_correct_at_the_threshold_of_the_task(labels: Path, tmp_path: Path) -> None:
    settings = [*FAST, "train.epochs=1", "task.threshold=0.3"]
    run = api.train("multilabel_nano", tmp_path / "run", data=labels, set=settings)
    found = api.evaluate(run)
    correct = MultilabelReport().paired_scores(run / "evaluation-test").values
    assert correct.mean() == pytest.approx(found.scores["exact_match"])
    for row in read(run / "evaluation-test" / "predictions.csv"):
        called = {name for name in SHAPE_NAMES if float(row[name]) >= 0.3}
        assert called == set(filter(None, row["predicted_classes"].split(";")))


def test_data_without_such_labels_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "multilabel_nano", "--set", "data.name=digits", "--set", "data.options={}"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "data set 'digits' has no targets for the task 'multilabel'" in error
    assert error.count("\n") == 1


def test_the_same_layout_serves_one_label_per_image(labels: Path, tmp_path: Path) -> None:
    rows = read(labels)
    path = labels.with_name("single.csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "label"))
        writer.writerows((row["image"], row["labels"].partition(";")[0]) for row in rows)
    settings = ["data.name=csv", *FAST, "train.epochs=1"]
    run = api.train("folder_nano", tmp_path / "run", data=path, set=settings)
    assert api.evaluate(run).scores["accuracy"] >= 0
