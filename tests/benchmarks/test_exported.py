"""The benchmark of exported files, with a small network of digits."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pacavit import api, load_plugin, recipes
from pacavit.data import DATASETS
from pacavit.engine import build, save_weights
from pacavit.recipes.schema import ModelConfig

pytest.importorskip("openvino", reason="the extra export is not installed")


@pytest.mark.slow
def test_all_engines_are_measured_once(
    load_benchmark: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    weights, results = tmp_path / "tiny.safetensors", tmp_path / "exported.json"
    load_plugin(Path(__file__).parents[1] / "engine" / "tiny.py")
    info = DATASETS.get("digits")().info
    recipe = recipes.load("digits").model_copy(
        update={"model": ModelConfig.model_validate({"name": "tiny_net"})}
    )
    save_weights(weights, build.task(recipe, info).model, recipe, info, {})
    study = load_benchmark("exported")
    monkeypatch.setattr(study, "FILES", dict(list(study.FILES.items())[:3]))
    words = ["--models", str(weights), "--out", str(tmp_path / "out"), "--batches", "1", "2"]
    words += ["--rounds", "2", "--warm-up", "1", "--results", str(results)]
    study.main(words)
    row = json.loads(results.read_text("utf-8"))["models"]["tiny"]
    accuracy = api.evaluate(weights, split="test").accuracy
    assert list(row["engines"]) == ["PyTorch", *study.FILES]
    for engine, found in row["engines"].items():
        tolerance = 0.1 if "int8" in engine else 1e-4
        assert found["score"] == pytest.approx(accuracy, abs=tolerance), engine
        assert found["bytes"] > 0
    assert row["engines"]["PyTorch"]["bytes"] == weights.stat().st_size
    for number in ("1", "2"):
        assert set(row["speed"][number]) == {"PyTorch", *study.FILES}
        assert row["speed"][number]["PyTorch"]["ratio"] == [1, 1, 1]
        assert row["speed"][number]["ONNX Runtime"]["images_per_second"][0] > 0

    def again(*arguments: object, **options: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(study, "score_model", again)
    monkeypatch.setattr(study, "speed", again)
    study.main(words)
    assert json.loads(results.read_text("utf-8"))["models"]["tiny"] == row
    with pytest.raises(SystemExit, match="other settings"):
        study.main([*words, "--rounds", "3"])
