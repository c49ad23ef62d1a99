"""Dense tasks and a packaged network, exported and used like what they were made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pacavit import api
from pacavit.engine.predictor import Predictor
from pacavit.engine.weights.load import load_model
from pacavit.errors import PacavitError
from pacavit.export.check import Agreement
from pacavit.tasks.detection import ImageDetections
from pacavit.tasks.segmentation import ImageSegmentation
from pacavit_cli.main import main


@pytest.mark.slow
def test_the_packaged_network_takes_pixels_of_any_size(tmp_path: Path) -> None:
    file = tmp_path / "nano.onnx"
    made = api.export("cifar10_nano_conv", file, input="uint8")
    assert isinstance(made.agreement, Agreement)
    assert made.agreement.difference < 1e-5
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*size, 3), np.uint8) for size in ((32, 32), (50, 71))]
    found = Predictor(load_model(file))(images)
    expected = Predictor(load_model("cifar10_nano_conv"))(images)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.record.logits, other.record.logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["float", "uint8"])
def test_a_segmentation(segmenter: Path, noise_image: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "scenes.pt2"
    api.export(segmenter, file, input=kind)  # type: ignore[arg-type]
    loaded = load_model(file)
    assert loaded.exported is not None
    assert loaded.exported.facts.outputs == ("logits", "cluster_logits")
    [found] = Predictor(loaded)([noise_image])
    [expected] = Predictor(load_model(segmenter))([noise_image])
    torch.testing.assert_close(found.record.logits, expected.record.logits, rtol=0, atol=1e-4)
    assert torch.equal(found.record.cluster_labels, expected.record.cluster_labels)
    [one] = api.predict(file, [noise_image])
    [other] = api.predict(segmenter, [noise_image])
    assert isinstance(one, ImageSegmentation)
    assert one.to_dict() == other.to_dict()
    [explained] = api.explain(file, noise_image, tmp_path / "explained")
    assert explained.error is None


@pytest.mark.slow
def test_instances_from_clusters(detector: Path, noise_image: Path, tmp_path: Path) -> None:
    file = tmp_path / "objects.onnx"
    api.export(detector, file)
    [one], [other] = api.predict(file, [noise_image]), api.predict(detector, [noise_image])
    assert isinstance(one, ImageDetections)
    found, expected = one.to_dict(), other.to_dict()
    assert len(found["objects"]) == len(expected["objects"]) > 0
    for mine, own in zip(found["objects"], expected["objects"], strict=True):
        assert mine["class"] == own["class"]
        assert mine["box"] == pytest.approx(own["box"], abs=1)
    with pytest.raises(PacavitError, match="--input uint8 is for classification and segmentation"):
        api.export(detector, tmp_path / "bytes.onnx", input="uint8")


def test_a_file_serves_the_demo_and_an_ensemble(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, image = tmp_path / "digits.pt2", tmp_path / "noise.png"
    api.export(digits_run, file)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)).save(image)
    [both] = api.predict([file, digits_run], [image], top_k=10)
    [alone] = api.predict(digits_run, [image], top_k=10)
    assert dict(both.top) == pytest.approx(dict(alone.top), abs=1e-5)  # type: ignore[attr-defined]
    from pacavit.demo.models import Models

    explained = Models([str(file)]).explain(str(file), image)
    assert explained.explanation.choice.methods == ("occlusion",)
    capsys.readouterr()
    out = tmp_path / "scores"
    assert main(["evaluate", str(file), "--out", str(out)]) == 0
    assert (out / "evaluation.json").is_file()
