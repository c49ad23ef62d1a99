"""int8: what it keeps of outputs and scores, and when the file is removed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from pacavit import api, load_plugin, recipes
from pacavit.data import DATASETS
from pacavit.engine import build, save_weights
from pacavit.engine.exported import METADATA_KEY
from pacavit.engine.predictor import Predictor
from pacavit.engine.weights.load import load_model
from pacavit.errors import PacavitError
from pacavit.export import int8
from pacavit.recipes.schema import ModelConfig
from pacavit_cli.main import main

Export = Callable[..., Path]

CASES: list[tuple[str, dict[str, Any]]] = [
    ("blobs.onnx", {}),
    ("blobs.onnx", {"input": "uint8", "size": (32, 32)}),
    ("blobs.xml", {}),
    ("served", {"to": "triton", "input": "uint8"}),
]
INT8: dict[str, Any] = {"precision": "int8", "allow_drop": True}


@pytest.mark.parametrize(("name", "options"), CASES, ids=["onnx", "fixed", "openvino", "triton"])
def test_a_file_in_int8_predicts_nearly_what_the_weights_predict(
    export: Export, weights: Path, name: str, options: dict[str, Any]
) -> None:
    sizes = [(32, 32)] if "size" in options else [(32, 32), (30, 20), (24, 28)]
    digits = DATASETS.get("digits")().load("test")  # noise would exceed the calibrated ranges
    images = [digits[i].image[:, :rows, :columns] for i, (rows, columns) in enumerate(sizes)]
    file = load_model(export(name, **options, **INT8))
    found = Predictor(file)(images)
    expected = Predictor(load_model(weights))(images)
    for one, other in zip(found, expected, strict=True):
        # 256 steps for the inputs of two layers, and for their weights.
        torch.testing.assert_close(one.record.logits, other.record.logits, rtol=0, atol=0.05)
    assert file.exported is not None
    assert file.exported.facts.precision == "int8"


def test_the_recorded_scores_are_those_of_evaluate(export: Export, weights: Path) -> None:
    path = export("blobs.onnx", **INT8)
    [entry] = [each for each in onnx.load(path).metadata_props if each.key == METADATA_KEY]
    found = json.loads(entry.value)["export"]["quantization"]
    before, after = (api.evaluate(each, split="val") for each in (weights, path))
    assert found["metric"] == "accuracy"
    assert (found["before"], found["after"]) == (before.accuracy, after.accuracy)
    assert found["num_images"] == before.num_images
    assert (found["images"], found["seed"]) == (256, 0)
    assert found["data"] == DATASETS.get("digits")().info.version
    assert 0.9 < found["same_top"] <= 1


def test_convolutions_and_linear_layers_are_quantized_per_channel(export: Export) -> None:
    graph = onnx.load(export("blobs.onnx", **INT8)).graph
    kinds = {each.name: (each.data_type, tuple(each.dims)) for each in graph.initializer}
    scales = [
        kinds[node.input[1]][1]
        for node in graph.node
        if node.op_type == "DequantizeLinear"
        and kinds.get(node.input[0], (0,))[0] == onnx.TensorProto.INT8
    ]
    assert sorted(scales) == [(8,), (10,)]  # channels of the convolution, classes
    zeros = [kinds[node.input[2]][0] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert zeros
    assert set(zeros) == {onnx.TensorProto.UINT8}


def test_pixels_are_resized_in_fp32(export: Export) -> None:
    graph = onnx.load(export("blobs.onnx", **CASES[1][1], **INT8)).graph
    first = next(node for node in graph.node if node.op_type == "QuantizeLinear")
    convolution = next(node for node in graph.node if node.op_type == "Conv")
    assert first.output[0] in {
        node.input[0] for node in graph.node if node.output[0] == convolution.input[0]
    }


def test_a_file_that_loses_more_is_removed(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize = int8._quantize

    def spoil(exported: Any, plain: Path, out: Path, train: Any) -> int:
        images = quantize(exported, plain, out, train)
        model = onnx.load(out)
        for each in model.graph.initializer:
            if each.data_type == onnx.TensorProto.INT8 and len(each.dims) == 2:
                each.raw_data = bytes(len(each.raw_data))  # all classes alike
        onnx.save(model, out)
        return images

    monkeypatch.setattr(int8, "_quantize", spoil)
    monkeypatch.setattr(int8, "LIMIT", -100)  # the weights are not trained
    out = tmp_path / "blobs.onnx"
    with pytest.raises(
        PacavitError, match=r"int8 loses \S+ points, more than .*accuracy 0.* in fp32.*was removed"
    ):
        api.export(weights, out, precision="int8")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(int8, "LIMIT", 100)
    made = api.export(weights, out, precision="int8")
    assert made.facts.quantization is made.agreement


def test_the_command_prints_both_scores(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "blobs.onnx"
    assert main(["export", str(weights), str(out), "--int8", "--allow-drop"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"wrote .*: onnx, 0\.\d MB, int8, float images of any size\n", printed)
    assert re.search(
        r"accuracy 0\.\d{4} in fp32, 0\.\d{4} in int8, on [\d,]+ validation images; the same class "
        r"first for \d+\.\d%; calibrated on 256 training images\n",
        printed,
    )
    assert [each.name for each in tmp_path.iterdir()] == ["blobs.onnx"]


def test_several_labels_per_image(tmp_path: Path) -> None:
    load_plugin(Path(__file__).parents[1] / "engine" / "tiny.py")
    random, lines = np.random.default_rng(0), ["image,labels,split"]
    for number in range(24):
        labels = ["red", "green", "blue"][: number % 3 + 1]
        pixels = random.integers(0, 100, (16, 16, 3), np.uint8)
        pixels[:8, :, : len(labels)] += 120
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{';'.join(labels)},{'train' if number < 14 else 'val'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    torch.manual_seed(0)
    recipe = recipes.load("multilabel_nano", ["task.image_size=16"]).model_copy(
        update={"model": ModelConfig.model_validate({"name": "tiny_net"})}
    )
    info = build.data_source(recipe, tmp_path).info
    weights = tmp_path / "tiny.safetensors"
    save_weights(weights, build.task(recipe, info).model, recipe, info, {})
    with pytest.raises(PacavitError, match=r"images of csv, and its folder is not known; .*--data"):
        api.export(weights, tmp_path / "tiny.onnx", **INT8)
    made = api.export(weights, tmp_path / "tiny.onnx", data=tmp_path, **INT8)
    found = made.facts.quantization
    assert found is not None
    before, after = (
        api.evaluate(each, split="val", data=tmp_path) for each in (weights, made.path)
    )
    assert (found.metric, found.before, found.after) == ("mAP", before.mAP, after.mAP)
    assert (found.images, found.num_images) == (14, 10)
