"""Heatmaps in the report of a run: which images, which pictures, and what if there are none."""

from __future__ import annotations

import json
import shutil
from base64 import b64decode
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

from pacavit.data import MemoryImages
from pacavit.engine.weights.load import LoadedModel, load_model
from pacavit.errors import PacavitError
from pacavit.report.explanation import heatmaps
from pacavit.report.explanation.heatmaps import make_heatmaps
from pacavit.report.run_page import run_page
from pacavit.report.tasks.classification.examples import choose_few
from pacavit.report.tasks.classification.observe import TopClasses
from pacavit.report.tasks.classification.sections import heatmaps_section

CPU = torch.device("cpu")


@pytest.fixture
def model(run: Path) -> LoadedModel:
    return load_model(run)


def split(height: int, width: int) -> MemoryImages:
    pixels = torch.randint(0, 256, (4, 3, height, width), dtype=torch.uint8)
    return MemoryImages(pixels, torch.arange(4))


def test_the_report_shows_a_few_images_with_method_and_stage(run: Path) -> None:
    text = (run / "report.html").read_text()
    found = json.loads((run / "evaluation-val" / "examples.json").read_text())["heatmaps"]
    assert len(found["images"]) == 6
    method = found["method"].replace("_", " ")
    assert f"its map by {method}, bright" in text
    assert f"cluster of patches of stage {found['stage']}, the last" in text
    for one in found["images"]:
        name, probability = one["guess"]
        assert f"{100 * probability:.1f} %" in text
        assert f'alt="{method} of image {one["index"]} for {name}"' in text
        assert one["partition"] in text


def test_three_pictures_have_the_shape_of_the_image(model: LoadedModel) -> None:
    found = make_heatmaps(model, split(12, 20), [2, 0], device=CPU)
    assert found.error is None
    assert [(one.index, one.label) for one in found.images] == [(2, "2"), (0, "0")]
    pictures = [found.images[0].image, found.images[0].overlay, found.images[0].partition]
    assert len(set(pictures)) == 3
    for picture in pictures:
        assert picture is not None
        with Image.open(BytesIO(b64decode(picture))) as opened:
            assert opened.size == (128, 77)


def test_right_images_come_first_and_wrong_ones_are_at_most_half() -> None:
    def top(num_wrong: int) -> TopClasses:
        guesses = (torch.arange(10) < num_wrong).long()
        surest = torch.linspace(0.5, 0.9, 10)
        zeros = torch.zeros(10, dtype=torch.int64)
        return TopClasses(10 + torch.arange(10), zeros, surest, guesses[:, None], surest[:, None])

    assert choose_few(top(4)) == [14, 16, 19, 13, 12, 11]
    assert choose_few(top(0)) == [10, 12, 14, 15, 17, 19]
    assert choose_few(top(10)) == [19, 18, 17]


def test_a_model_without_clusters_has_maps_alone(model: LoadedModel) -> None:
    network = timm.create_model("pacavit_nano", num_classes=10, num_clusters=0)
    task = replace(model, task=type(model.classifier)(network, model.classifier.config, 10))
    found = make_heatmaps(task, split(8, 8), [0], device=CPU)
    assert (found.method, found.stage, found.error) == ("relevance", None, None)
    [one] = found.images
    assert one.partition is None
    assert one.overlay != one.image
    page = "".join(heatmaps_section(found, "val").parts)
    assert "its map by relevance, bright where the evidence for the predicted class lies." in page
    assert page.count("<img") == 2
    assert "cluster" not in page


def test_a_failed_explanation_is_reported_in_one_line(
    run: Path, model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PacavitError("the stem <b>is odd</b>")

    monkeypatch.setattr(heatmaps, "explain_split", refuse)
    found = make_heatmaps(model, split(8, 8), [0], device=CPU)
    assert (found.images, found.error) == ((), "the stem <b>is odd</b>")

    copy = shutil.copytree(run, tmp_path / "run")
    file = copy / "evaluation-val" / "examples.json"
    stored = json.loads(file.read_text())
    stored["heatmaps"] = {"method": "class_map", "images": [], "error": found.error}
    file.write_text(json.dumps(stored))
    assert "explained: the stem &lt;b&gt;is odd&lt;/b&gt;" in run_page(copy, model)
    del stored["heatmaps"]  # as it was before there were any
    file.write_text(json.dumps(stored))
    assert "Heatmaps" not in run_page(copy, model)
