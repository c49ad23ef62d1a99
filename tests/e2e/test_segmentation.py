"""Segmentation of a folder of images with masks: every verb knows the task."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pacavit import api
from pacavit.data import render_scenes
from pacavit.engine import load_model
from pacavit.report.publishing.card import model_card
from pacavit.tasks.segmentation import ImageSegmentation
from pacavit.utils.command import pacavit_command
from pacavit_cli.main import main

# Numbers of the classes in the masks; the shapes' own classes, 1 to 8, become one.
BACKGROUND, SHAPE, UNLABELED = 20, 70, 255
FAST = [
    "train.epochs=1",
    "model.init=null",
    "train.batch_size=8",
    "task.crop_size=[32, 40]",
    "task.head_options={channels = 16}",
    "data.num_workers=0",
    "model.options={embed_dims = [24, 32, 48], num_heads = [2, 2, 2], stem_dims = [8, 24]}",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of shapes of three sizes with masks, in folders of splits."""
    root = tmp_path_factory.mktemp("shapes")
    scenes = render_scenes(torch.arange(40), size=48, seed=0)
    (root / "classes.txt").write_text("20 background 200 200 200\n70 shape 250 0 0\n")
    for number, (image, semantic) in enumerate(zip(scenes.images, scenes.semantic, strict=True)):
        split = ("train", "train", "val", "test")[number % 4]
        height, width = ((48, 48), (40, 48), (48, 33))[number % 3]
        mask = torch.where(semantic == 0, BACKGROUND, SHAPE).to(torch.uint8)
        mask[:2] = UNLABELED
        for kind, pixels in (("images", image.permute(1, 2, 0)), ("masks", mask)):
            path = root / split / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[:height, :width].numpy()).save(path)
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("segmentation") / "run"
    return api.train("masks_nano", out, data=folder, set=FAST)


def test_training_measures_and_reports_the_task(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert 0 <= rows[0]["val_mIoU"] <= 1
    assert rows[0]["train_loss_clusters"] > 0
    page = (run / "report.html").read_text()
    for part in ("validation mIoU", "mIoU of the clusters alone", "Lowest scores"):
        assert part in page


def test_scores_are_those_of_an_independent_count_on_predicted_files(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run)]) == 0
    printed = capsys.readouterr().out
    for name in ("mIoU", "boundary IoU", "frequency-weighted IoU", "background"):
        assert name in printed
    record = json.loads((run / "evaluation-test" / "evaluation.json").read_text())
    out = tmp_path / "predicted"
    assert main(["predict", str(run), str(folder / "test" / "images"), "--out", str(out)]) == 0
    values, matrix = (BACKGROUND, SHAPE), np.zeros((2, 2), dtype=int)
    for path in sorted((folder / "test" / "masks").iterdir()):
        with Image.open(path) as truth, Image.open(out / f"{path.stem}.labels.png") as found:
            pairs = np.array(truth), np.array(found)
        assert pairs[0].shape == pairs[1].shape
        for row, column in np.ndindex(2, 2):
            matrix[row, column] += ((pairs[0] == values[row]) & (pairs[1] == values[column])).sum()
    assert record["arrays"]["confusion"] == matrix.tolist()
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    assert record["scores"]["mIoU"] == pytest.approx((matrix.diagonal() / union).mean(), rel=1e-5)
    with (run / "evaluation-test" / "images.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 10


def test_batches_and_workers_change_no_answer(run: Path, folder: Path) -> None:
    paths = sorted((folder / "test" / "images").iterdir())
    together, alone = (api.predict(run, paths, batch_size=size) for size in (16, 1))
    for first, second in zip(together, alone, strict=True):
        assert isinstance(first, ImageSegmentation)
        assert isinstance(second, ImageSegmentation)
        assert first.labels is not None
        assert second.labels is not None
        assert torch.equal(first.labels, second.labels)


def test_predict_prints_and_refuses(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(folder / "test" / "images" / "3.png")
    assert main(["predict", str(run), image, "--json"]) == 0
    [record] = json.loads(capsys.readouterr().out)
    assert sum(each["area"] for each in record["classes"]) == pytest.approx(1, abs=1e-5)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    assert main(["predict", str(run), image, "--out", str(tmp_path / "full")]) == 2
    assert "not empty" in capsys.readouterr().err
    assert main(["predict", str(run), image, "--tta", "flip"]) == 2
    assert "segmentation" in capsys.readouterr().err
    assert main(["predict", str(run), image, "--ensemble", str(run)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_run_can_be_published_and_used_from_the_folder(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(run)
    evaluation = api.evaluate(run)
    command = pacavit_command("evaluate", run)
    environment = json.loads((run / "environment.json").read_text())
    card = model_card(
        "shapes",
        model,
        evaluation,
        environment=environment,
        seconds=60.0,
        evaluation_command=command,
    )
    for part in ("paca head", "mIoU", "every pixel", "--out DIR"):
        assert part in card
    published = api.save_pretrained(run, tmp_path / "hub")
    assert "pipeline_tag: image-segmentation" in (published / "README.md").read_text()
    image = str(folder / "test" / "images" / "3.png")
    assert main(["predict", str(published), image, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(["predict", str(run), image, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == first


def test_runs_are_compared_by_their_scores(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for change in FAST for word in ("--set", change)]
    command = ["compare", "masks_nano", "--over", "model.clustering=conv,grid", *words]
    assert main([*command, "--data", str(folder), "--out", str(tmp_path / "study")]) == 0
    printed = capsys.readouterr().out
    assert "mIoU" in printed
    assert "boundary IoU" in (tmp_path / "study" / "comparison.md").read_text()


def test_weights_of_a_classifier_start_the_backbone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init = ["--set", "model.init=cifar10_nano_conv", "--set", "model.options={stem_stride = 4}"]
    words = [word for change in FAST[:-1] for word in ("--set", change)]
    out = str(tmp_path / "run")
    assert main(["train", "masks_nano", *words, *init, "--data", str(folder), "--out", out]) == 0
    printed = capsys.readouterr()
    text = printed.out + printed.err
    assert "stem_stride 4" in text
    assert "newly initialized" in text
