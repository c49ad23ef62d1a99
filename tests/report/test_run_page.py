"""The report of a run: what it says, whose results it shows, and how it looks in a browser."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from markupsafe import escape

from pacavit import api
from pacavit.api import training
from pacavit.engine import load_model
from pacavit.engine.evaluate import ClassScores, Evaluation
from pacavit.errors import CheckpointError
from pacavit.report.run_page import run_page, write_run_page
from pacavit.report.tasks.classification.sections import confusion_section
from pacavit.utils.statistics import proportion_interval
from pacavit_cli.main import main

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture
def run(awkward_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(awkward_run, tmp_path / "run")


def test_training_leaves_a_report_with_validation_results(awkward_run: Path) -> None:
    text = (awkward_run / "report.html").read_text()
    for part in (
        "validation accuracy",
        "Learning curves",
        "Confusion matrix",
        "weighted",
        "pacavit_nano with conv clustering",
        "pacavit train recipe.json --out DIR",
        "label_smoothing",
        "torchmetrics",
        "data:image/svg+xml;base64,",
        "data:image/png;base64,",
    ):
        assert part in text, part
    for name in load_model(awkward_run).info.class_names:
        assert escape(name) in text
    assert "<script" not in text
    assert "<img src=x" not in text


def test_evaluation_adds_the_test_results(run: Path) -> None:
    evaluation = api.evaluate(run)
    text = (run / "report.html").read_text()
    assert "test accuracy" in text
    assert f"{evaluation.f1_weighted:.4f}" in text
    assert "Validation images: noise" in text


def test_results_of_other_weights_are_left_out(run: Path) -> None:
    weights = run / "weights.safetensors"
    shutil.copy(run / "checkpoints" / "step-3" / "model.safetensors", weights)
    text = run_page(run, load_model(run))
    assert "Confusion matrix" not in text
    assert "Learning curves" in text


def test_results_elsewhere_leave_the_report_alone(run: Path, tmp_path: Path) -> None:
    before = (run / "report.html").read_bytes()
    api.evaluate(run, out=tmp_path / "elsewhere")
    assert (run / "report.html").read_bytes() == before
    assert api.report_file(run, out=tmp_path) is None
    assert api.report_file("cifar10_nano_conv") is None


def test_a_run_that_is_not_finished_says_so(run: Path) -> None:
    (run / "weights.safetensors").unlink()
    metrics = run / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines(keepends=True)[0])
    assert "1 of 2 epochs are done" in run_page(run, load_model(run))
    metrics.unlink()
    assert "Learning curves" not in run_page(run, load_model(run))


def test_two_validation_scores_are_explained(run: Path) -> None:
    model = load_model(run)
    assert "are computed in fp32" not in run_page(run, model)
    config = model.recipe.train.model_copy(update={"precision": "bf16"})
    model = replace(model, recipe=model.recipe.model_copy(update={"train": config}))
    assert "are computed in fp32" not in run_page(run, model)  # the same to all digits shown
    metrics = run / "metrics.jsonl"
    *rows, last = metrics.read_text().splitlines()
    last = json.dumps(json.loads(last) | {"val_accuracy": 0.1234})
    metrics.write_text("\n".join([*rows, last, ""]))
    text = run_page(run, model)
    assert "Validation accuracy after the last epoch is 0.1234 here" in text
    assert "in bf16 as in training" in text


def test_the_accuracy_has_its_interval(run: Path) -> None:
    page = run_page(run, load_model(run))
    accuracy = json.loads((run / "evaluation-val" / "evaluation.json").read_text())["scores"]
    low, high = proportion_interval(accuracy["accuracy"], 12)[1:]
    assert "accuracy, 95 % interval" in page
    assert f"{low:.3f} to {high:.3f}" in page


def test_the_folder_of_the_images_is_not_shown(cifar10_folder: Path, tmp_path: Path) -> None:
    settings = ["train.epochs=1", "train.batch_size=8", "data.val_size=10"]
    run = api.train("cifar10_nano_short", tmp_path / "run", data=cifar10_folder, set=settings)
    text = (run / "report.html").read_text()
    assert "pacavit train cifar10_nano_short --out DIR --data ROOT" in text
    assert "pacavit evaluate DIR --data ROOT" in text
    assert str(cifar10_folder) not in text
    assert '<dt class="emphasis">batch_size</dt>' in text


def test_the_path_of_initial_weights_is_not_shown(run: Path) -> None:
    model = load_model(run)

    def page(init: str, name: str) -> str:
        network = model.recipe.model.model_copy(update={"init": init})
        recipe = model.recipe.model_copy(update={"model": network, "name": name})
        return run_page(run, replace(model, recipe=recipe))

    elsewhere = page("/home/me/trained", "my own")
    assert "/home/me" not in elsewhere
    assert "with WEIGHTS for what model.init in recipe.json names:" in elsewhere
    elsewhere = page("/home/me/trained", "digits")
    assert "/home/me" not in elsewhere
    assert "model.init=WEIGHTS" in elsewhere
    assert "with the weights to start from in WEIGHTS:" in elsewhere
    packaged = page("cifar10_nano_conv", "digits")
    assert "WEIGHTS" not in packaged
    assert "model.init=cifar10_nano_conv" in packaged


def test_images_that_could_not_be_read_are_counted(run: Path) -> None:
    assert "left out" not in run_page(run, load_model(run))
    record = run / "evaluation-val" / "evaluation.json"
    facts = json.loads(record.read_text())
    facts["broken_images"] = ["/home/me/1.png is a broken image"]
    record.write_text(json.dumps(facts))
    (run / "broken_images.txt").write_text("/home/me/1.png is broken\n/home/me/2.png too\n")
    text = run_page(run, load_model(run))
    assert "1 validation image was left out because" in text
    assert "2 training and validation images were left out because" in text
    assert "/home/me" not in text


def test_a_report_that_cannot_be_made_costs_no_scores(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "environment.json").unlink()
    api.evaluate(run)
    assert "Environment" not in (run / "report.html").read_text()
    (run / "evaluation-val" / "examples.json").write_text("{")
    with pytest.warns(UserWarning, match=r"report could not be made: .* cannot be read"):
        evaluation = api.evaluate(run)
    assert evaluation.num_images == 30
    assert main(["evaluate", str(run)]) == 0
    out, err = capsys.readouterr()
    assert "precision" in out
    assert "report in" not in out
    assert err.startswith("warning: the report could not be made: the evaluation in ")
    assert err.count("\n") == 1


def test_a_page_that_cannot_be_written_is_reported(run: Path) -> None:
    (run / "report.html").unlink()
    (run / "report.html").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot write .*report\.html"):
        write_run_page(run, load_model(run))


def test_a_finished_run_is_not_measured_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "report.html").unlink()
    monkeypatch.setattr(training, "score_model", None)
    api.train(load_model(run).recipe, run, resume=True)
    assert "validation accuracy" in (run / "report.html").read_text()


def test_many_classes_are_a_picture_and_a_list_of_the_worst() -> None:
    num = 40
    rows = tuple(
        ClassScores(f"class {i}", {"precision": 0.5, "recall": 0.5, "f1": i / num}, 4)
        for i in range(num)
    )
    confusion = 3 * torch.eye(num, dtype=torch.int64)
    confusion[7, 8] = 1
    kinds = ("precision", "recall", "f1")
    names = [f"{kind}_{average}" for kind in kinds for average in ("macro", "weighted")]
    scores = dict.fromkeys(("accuracy", "loss", *names), 0.5)
    arrays = {"confusion": confusion}
    evaluation = Evaluation("classification", scores, rows, arrays, 160, 1.0)
    picture, confused = confusion_section(evaluation, "test").parts
    assert "data:image/png" in picture
    assert "25.0 %" in confused
    assert "class 8" in confused


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_in_a_browser(awkward_run: Path, browser: Browser, scheme: Any, width: int) -> None:
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 800}, offline=True
    )
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    file = (awkward_run / "report.html").as_uri()
    page.goto(file)
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [file]

    # Nothing that came in as a name was run, and it is there to be read.
    assert page.title().startswith("<script>")
    assert page.locator("script, [onerror]").count() == 0
    assert page.get_by_text("<img src=x onerror=").first.is_visible()

    for curve in page.locator("figure img").all():
        box = curve.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) > 100
        assert curve.evaluate("image => image.complete && image.naturalWidth > 0")
        assert "goes from" in (curve.get_attribute("alt") or "")
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("table:not(:has(caption))").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in ("body", ".soft", "a", "summary", "caption", "td.right"):
        assert contrast(page, selector) >= 4.5, selector
    context.close()


def contrast(page: Page, selector: str) -> float:
    """WCAG 2 contrast of the first such element with the page behind it."""
    ink, cell, paper = page.locator(selector).first.evaluate(
        """element => [element, element, document.body].map((each, index) =>
            getComputedStyle(each)[index ? "backgroundColor" : "color"]
                .match(/[\\d.]+/g).map(Number))"""
    )
    alpha = cell[3] if len(cell) == 4 else 1.0
    behind = [alpha * over + (1 - alpha) * under for over, under in zip(cell, paper, strict=False)]
    lighter, darker = sorted((luminance(ink), luminance(behind)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: list[float]) -> float:
    parts = [channel / 255 for channel in color[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
