"""Detection and instance segmentation of rendered shapes: every verb knows the tasks."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from pacavit import api
from pacavit.data import Shapes
from pacavit.engine import load_model
from pacavit.report.publishing.card import model_card
from pacavit.tasks.detection import ImageDetections
from pacavit.utils.command import pacavit_command
from pacavit.utils.pictures import pillow_image
from pacavit_cli.main import main

SIZES = {"train_size": 16, "test_size": 8}
FAST = [
    "train.epochs=1",
    "model.init=null",
    "train.batch_size=8",
    "task.image_size=null",
    "data.val_size=8",
    f"data.options={{train_size = {SIZES['train_size']}, test_size = {SIZES['test_size']}}}",
    "task.detector_options.channels=16",
    "task.detector_options.max_detections=20",
    "task.detector_options.fc_channels=32",
    "model.options={embed_dims = [24, 32, 48], num_heads = [2, 2, 2], stem_dims = [8, 24]}",
]
WORDS = [word for change in FAST for word in ("--set", change)]
DATA = ["--dataset", "shapes", "--set", FAST[4], "--set", FAST[5]]
RECIPES = {"detection": "shapes_boxes_nano", "instance_segmentation": "shapes_instances_nano"}


@pytest.fixture(scope="module", params=list(RECIPES))
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def run(task: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return api.train(RECIPES[task], tmp_path_factory.mktemp(task) / "run", set=FAST)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test images as files, whose names are their numbers."""
    folder = tmp_path_factory.mktemp("pictures")
    images = Shapes(**SIZES, target="boxes").load("test")
    for position in range(len(images)):
        sample = images[position]
        pillow_image(sample.image).save(folder / f"{sample.target.image_id:012}.png")
    return folder


def test_training_measures_and_reports_the_task(run: Path, task: str) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kind = "box" if task == "detection" else "mask"
    assert 0 <= rows[0][f"val_{kind}_AP"] <= 1
    page = (run / "report.html").read_text()
    parts = [f"validation {kind} AP", "rpn objectness loss", "Precision and recall", "Lowest F1"]
    for part in [*parts, "false alarm", "no object"]:
        assert part in page


def test_the_predictions_of_an_evaluation_have_its_scores(
    run: Path, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run)]) == 0
    printed = capsys.readouterr().out
    folder, out = run / "evaluation-test", tmp_path / "measured"
    file = str(folder / "predictions.json")
    assert main(["evaluate", "--predictions", file, *DATA, "--out", str(out)]) == 0
    again = capsys.readouterr().out
    for name in ("AP50", "AR at 100", "best F1", "half-disc"):
        assert name in printed
        assert name in again
    one, other = (json.loads((each / "evaluation.json").read_text()) for each in (folder, out))
    for key in ("task", "scores", "per_class", "arrays", "num_images"):
        assert one[key] == other[key]
    assert one["task"] == task
    assert other["images_per_second"] is None
    for name in ("predictions.json", "images.csv", "confusion.csv"):
        assert (folder / name).read_bytes() == (out / name).read_bytes()
    assert "predictions.json" in (out / "results.html").read_text()


def test_predictions_of_files_have_the_scores_of_the_run(
    run: Path, task: str, pictures: Path, tmp_path: Path
) -> None:
    measured = api.evaluate(run)
    out = tmp_path / "predicted"
    found = api.predict(run, pictures, out=out, score=0.2)
    records = json.loads((out / "predictions.json").read_text())
    assert all(record["file_name"] == f"{record['image_id']:012}.png" for record in records)
    assert all(("segmentation" in record) == (task != "detection") for record in records)
    from_file = api.evaluate_predictions(
        out / "predictions.json", dataset="shapes", task=task, set=[FAST[4], FAST[5]]
    )
    assert from_file.scores == measured.scores
    for each in found:
        assert isinstance(each, ImageDetections)
        assert each.min_score == 0.2
        with Image.open(out / f"{each.path.stem}.overlay.jpg") as overlay:
            assert overlay.width == 480  # small images are enlarged, so that names can be read


def test_predict_prints_and_refuses(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(pictures / "000000000003.png")
    assert main(["predict", str(run), image, "--json"]) == 0
    [record] = json.loads(capsys.readouterr().out)
    assert all(set(each) == {"class", "score", "box", "area"} for each in record["objects"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    for words, message in (
        (["--out", str(tmp_path / "full")], "not empty"),
        (["--tta", "flip"], "task"),
        (["--ensemble", str(run)], "does not classify"),
        (["--score", "30"], "0..1"),
    ):
        assert main(["predict", str(run), image, *words]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert message in line


def test_a_run_can_be_published_and_used_from_the_folder(
    run: Path, task: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, evaluation = load_model(run), api.evaluate(run)
    card = model_card(
        "shapes",
        model,
        evaluation,
        environment=json.loads((run / "environment.json").read_text()),
        seconds=60.0,
        evaluation_command=pacavit_command("evaluate", run),
    )
    detector = "faster_rcnn" if task == "detection" else "mask_rcnn"
    for part in (f"{detector} detector", "box", "best F1", "Images of any size", "--out DIR"):
        assert part in card
    published = api.save_pretrained(run, tmp_path / "hub")
    text = (published / "README.md").read_text()
    hub = "object-detection" if task == "detection" else "image-segmentation"
    assert f"pipeline_tag: {hub}" in text
    assert "map_50" in text
    image = str(pictures / "000000000003.png")
    capsys.readouterr()
    assert main(["predict", str(published), image, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(["predict", str(run), image, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == first


def test_runs_are_compared_by_the_f1_of_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", "shapes_boxes_nano", "--over", "model.clustering=conv,grid", *WORDS]
    assert main([*command, "--out", str(tmp_path / "study")]) == 0
    capsys.readouterr()
    text = (tmp_path / "study" / "comparison.md").read_text()
    assert "box AP50" in text
    assert "F1 of each image" in text
    runs = list((tmp_path / "study").rglob("images.csv"))
    with runs[0].open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a MODEL to evaluate, or --predictions FILE"),
        (["MODEL", "--predictions", "FILE"], "omit MODEL"),
        (["--predictions", "FILE", "--all", "--dataset", "shapes"], "omit --all"),
        (["--predictions", "FILE", "--tta", "flip"], "omit --tta"),
        (["--predictions", "FILE", "--ensemble", "x"], "omit --ensemble"),
        (["MODEL", "--dataset", "coco"], "--dataset is for --predictions"),
        (["MODEL", "--task", "detection"], "--task is for --predictions"),
        (["MODEL", "--set", "data.options.a=1"], "--set is for --predictions"),
        (["--predictions", "nothing.json", "--dataset", "shapes"], "nothing.json cannot be read"),
        (["--predictions", "FILE"], "name its folder with --data ROOT"),
        (["--predictions", "FILE", "--data", "nowhere"], "nowhere"),
        (["--predictions", "FILE", "--dataset", "shape"], "did you mean 'shapes'"),
        (["--predictions", "FILE", "--dataset", "digits"], "no targets for the task"),
        (["--predictions", "FILE", *DATA, "--task", "segmentation"], "instance_segmentation"),
        (["--predictions", "FILE", *DATA, "--split", "all"], "unknown split"),
        (["--predictions", "FILE", *DATA], "image_id 77, which none of the 8 images"),
        (["--predictions", "FILE", *DATA, "--task", "instance_segmentation"], "image_id 77"),
        (["--predictions", "FILE", "--dataset", "shapes", "--set", "data.options.x=1"], "'x'"),
        (["--predictions", "FILE", *DATA, "--out", "FILE"], "is a file"),
    ],
)
def test_wrong_commands_are_refused_in_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"image_id": 77, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.5}
    (tmp_path / "FILE").write_text(json.dumps([record]))
    given = [str(tmp_path / "FILE") if word == "FILE" else word for word in words]
    assert main(["evaluate", *given]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
