"""Models that are loaded for predictions only, and their precision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pacavit import api
from pacavit.engine import precision as choosing
from pacavit.engine.ensemble import load_predictor
from pacavit.engine.precision import MAX_ERROR, for_prediction, relative_error
from pacavit.engine.predictor import Predictor
from pacavit.engine.scoring import score_model
from pacavit.engine.weights.load import LoadedModel, load_model, optimized
from pacavit.errors import PacavitError, UnknownNameError
from pacavit.explain.methods.base import METHODS
from pacavit.layers.mlp import ShortcutDepthwise
from pacavit.tasks.classification import ImagePrediction

MODEL = "cifar10_nano_conv"


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (6, 3, 32, 32), generator=generator, dtype=torch.uint8)


def logits(model: LoadedModel, images: Tensor) -> Tensor:
    return torch.stack([each.record.logits for each in Predictor(model)(images)])


@pytest.mark.parametrize("name", [MODEL, "cifar10_nano_kmeans", "cifar10_nano_gmm"])
def test_an_optimized_model_predicts_the_same(name: str, images: Tensor) -> None:
    fast = load_model(name, optimize=True)
    assert fast.precision == "fp32"
    assert not [each for each in fast.task.modules() if isinstance(each, ShortcutDepthwise)]
    torch.testing.assert_close(
        logits(fast, images), logits(load_model(name), images), rtol=1e-4, atol=1e-4
    )


def test_an_optimized_copy_leaves_the_model() -> None:
    model = load_model(MODEL)
    names = model.task.state_dict().keys()
    assert optimized(model).task.state_dict().keys() != names
    assert model.task.state_dict().keys() == names


def test_bf16_keeps_its_weights(images: Tensor) -> None:
    model = load_model(MODEL, optimize=True, precision="bf16")
    assert model.precision == "bf16"
    layers = [each for each in model.task.modules() if isinstance(each, nn.Linear | nn.Conv2d)]
    assert all(each.weight.dtype is torch.bfloat16 for each in layers)
    found, expected = logits(model, images), logits(load_model(MODEL), images)
    assert found.dtype is torch.float32
    assert not torch.equal(found, expected)
    error = (found - expected).norm() / (expected - expected.mean()).norm()
    assert error < MAX_ERROR
    prepared = Predictor(model).prepare(images).images
    assert relative_error(model, load_model(MODEL), prepared) == pytest.approx(
        float(error), rel=1e-3
    )


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("agrees", [True, False])
def test_auto_is_bf16_where_it_is_native_and_agrees(
    monkeypatch: pytest.MonkeyPatch, images: Tensor, native: bool, agrees: bool
) -> None:
    monkeypatch.setattr(choosing, "has_bf16", lambda: native)
    if not agrees:
        monkeypatch.setattr(choosing, "MAX_ERROR", 1e-6)
    model = load_model(MODEL)
    prepared = Predictor(model).prepare(images).images
    chosen = for_prediction(model, "auto", prepared)
    assert chosen.precision == ("bf16" if native and agrees else "fp32")
    predictor = load_predictor(MODEL, precision="auto", examples=[*images])
    assert predictor.model.precision == chosen.precision


def test_auto_without_an_image_is_fp32(tmp_path: Path) -> None:
    assert for_prediction(load_model(MODEL), "auto").precision == "fp32"
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    predictor = load_predictor(MODEL, precision="auto", examples=[broken])
    assert predictor.model.precision == "fp32"


def test_unknown_precisions_are_named(images: Tensor) -> None:
    for precision in ("fp16", "AUTO"):
        with pytest.raises(UnknownNameError, match=precision):
            api.predict(MODEL, images[0], precision=precision)
        with pytest.raises(UnknownNameError, match=precision):
            api.evaluate(MODEL, precision=precision)
    with pytest.raises(UnknownNameError, match="auto"):
        load_model(MODEL, optimize=True, precision="auto")


def test_bf16_needs_an_optimized_model() -> None:
    with pytest.raises(PacavitError, match="optimize=True"):
        load_model(MODEL, precision="bf16")


def test_predict_in_bf16_is_close(images: Tensor) -> None:
    exact, half = (api.predict(MODEL, [*images], precision=name) for name in ("fp32", "bf16"))
    for one, other in zip(exact, half, strict=True):
        assert isinstance(one, ImagePrediction)
        assert isinstance(other, ImagePrediction)
        assert one.top[0].name == other.top[0].name
        assert one.top[0].probability == pytest.approx(other.top[0].probability, abs=0.05)


def test_evaluate_saves_other_precisions_only_where_asked(digits_run: Path, tmp_path: Path) -> None:
    exact = api.evaluate(digits_run, out=tmp_path / "fp32")
    plain = score_model(load_model(digits_run), "test", device=torch.device("cpu")).evaluation
    for name, value in plain.scores.items():
        assert exact.scores[name] == pytest.approx(value, abs=1e-4)
    before = {path: path.stat().st_mtime_ns for path in digits_run.rglob("*")}
    half = api.evaluate(digits_run, precision="bf16")
    assert half.folder is None
    assert {path: path.stat().st_mtime_ns for path in digits_run.rglob("*")} == before
    assert half.scores["accuracy"] == pytest.approx(exact.scores["accuracy"], abs=0.05)
    assert half.scores["loss"] != exact.scores["loss"]
    saved = api.evaluate(digits_run, precision="bf16", out=tmp_path / "bf16")
    assert saved.scores == half.scores
    record = json.loads((tmp_path / "bf16" / "evaluation.json").read_text("utf-8"))
    assert record["command"][-2:] == ["--precision", "bf16"]


@pytest.mark.parametrize("method", ["cluster_contributions", "relevance", "rollout", "grad_cam"])
def test_explanations_of_an_optimized_network_are_the_same(method: str, images: Tensor) -> None:
    """Explanations take the network as it was trained; but hooks find all that they need."""
    model = load_model(MODEL)
    prepared, classes = Predictor(model).prepare(images).images, torch.arange(6)
    maps = [
        METHODS.create(method, each.classifier.model, options={})(prepared, classes)
        for each in (model, optimized(model))
    ]
    torch.testing.assert_close(*maps, rtol=1e-3, atol=1e-4)
