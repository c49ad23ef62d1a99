"""Evaluate on corrupted images through the command line."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import pacavit
from pacavit.data.corruptions import corrupt
from pacavit.engine import build
from pacavit.errors import PacavitError, UnknownNameError
from pacavit.tasks.classification import ImagePrediction
from pacavit_cli.main import main


def test_accuracy_by_kind_and_severity(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(digits_run, tmp_path / "run"))
    assert main(["evaluate", str(run), "--corruptions", "jpeg"]) == 0
    assert "accuracy on corrupted images" in capsys.readouterr().out
    record = json.loads((run / "evaluation-test" / "evaluation.json").read_text())
    assert record["command"][-2:] == ["--corruptions", "jpeg"]
    found = record["corruptions"]
    assert len(found["accuracy"]["jpeg"]) == 5
    assert found["mean_accuracy"] == pytest.approx(sum(found["accuracy"]["jpeg"]) / 5)

    model = pacavit.engine.load_model(run)
    images = build.data_source(model.recipe, None, model.info, "test").load("test")
    pixels = torch.stack([corrupt(images[index].image, "jpeg", 5) for index in range(len(images))])
    names = []
    for each in pacavit.predict(run, list(pixels)):
        assert isinstance(each, ImagePrediction)
        names.append(each.top[0].name)
    correct = [
        name == model.info.class_names[int(images.target(index))]
        for index, name in enumerate(names)
    ]
    assert found["accuracy"]["jpeg"][4] == pytest.approx(sum(correct) / len(correct))

    page = (run / "report.html").read_text()
    section = page.partition('id="corrupted-')[2].partition("</section>")[0]
    assert f"{found['mean_accuracy']:.4f}" in section
    assert f"{found['accuracy']['jpeg'][2]:.4f}" in section
    assert section.count("data:image/svg+xml") == 2

    assert main(["evaluate", str(run)]) == 0  # without corruptions, the section goes
    assert 'id="corrupted-' not in (run / "report.html").read_text()


def test_what_cannot_be_measured_is_refused_before_anything_runs(digits_run: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown corruption 'jpg'; did you mean 'jpeg'"):
        pacavit.evaluate(digits_run, corruptions="contrast,jpg")
    with pytest.raises(PacavitError, match="for one model, not for an ensemble"):
        pacavit.evaluate([digits_run, digits_run], corruptions="all")
    assert main(["evaluate", str(digits_run), "--corruptions", ""]) == 2
