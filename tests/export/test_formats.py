"""Each format: what is written, and what reads it back."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from pacavit.data import DATASETS
from pacavit.engine.exported import READERS
from pacavit.engine.predictor import Predictor
from pacavit.engine.weights.load import load_model, weights_digest
from pacavit.errors import CheckpointError
from pacavit.export import WRITERS

Export = Callable[..., Path]

CASES: list[tuple[str, dict[str, Any]]] = [
    ("blobs.onnx", {}),
    ("blobs.onnx", {"input": "uint8"}),
    ("blobs.onnx", {"precision": "fp16"}),
    ("blobs.xml", {}),
    ("blobs.xml", {"precision": "bf16"}),
    ("folder", {"to": "openvino", "input": "uint8"}),
    ("blobs.pt2", {}),
    ("blobs.pt2", {"input": "uint8"}),
    ("blobs.pt2", {"precision": "bf16"}),
    ("served", {"to": "triton", "input": "uint8"}),
]
IDS = ["-".join([name, *map(str, options.values())]) for name, options in CASES]


def photos(sizes: tuple[tuple[int, int], ...] = ((8, 8), (30, 20), (9, 13))) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_a_file_predicts_what_the_weights_predict(
    export: Export, weights: Path, name: str, options: dict[str, Any]
) -> None:
    found = Predictor(load_model(export(name, **options)))(photos())
    expected = Predictor(load_model(weights))(photos())
    tolerance = 1e-5 if "precision" not in options else 3e-2
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.record.logits, other.record.logits, rtol=0, atol=tolerance)
        torch.testing.assert_close(
            one.record.probabilities, other.record.probabilities, rtol=0, atol=tolerance
        )


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_a_file_says_what_it_is(
    export: Export, weights: Path, name: str, options: dict[str, Any]
) -> None:
    loaded, own = load_model(export(name, **options)), load_model(weights)
    assert loaded.info == own.info
    assert loaded.recipe == own.recipe
    assert loaded.metrics == {"accuracy": 0.5}
    assert loaded.calibration == own.calibration
    assert loaded.task.temperature == 1.5
    assert loaded.exported is not None
    facts = loaded.exported.facts
    assert facts.weights_sha256 == weights_digest(own)
    assert (facts.input, facts.precision) == (
        options.get("input", "float"),
        options.get("precision", "fp32"),
    )
    assert facts.size is None


def test_the_description_suffices_for_other_programs(export: Export) -> None:
    session = onnxruntime.InferenceSession(export("blobs.onnx"))
    text = json.loads(session.get_modelmeta().custom_metadata_map["pacavit"])
    info = DATASETS.get("digits")().info
    assert text["task"] == "classification"
    assert text["class_names"] == list(info.class_names)
    assert text["preprocessing"] == {
        "in_graph": False,
        "color": "RGB",
        "layout": "NCHW",
        "size": [32, 32],
        "mean": list(info.mean),
        "std": list(info.std),
    }
    assert text["temperature"] == 1.5
    [images], [logits] = session.get_inputs(), session.get_outputs()
    assert (images.name, images.shape) == ("images", ["batch", 3, "height", "width"])
    assert (logits.name, logits.shape) == ("logits", ["batch", 10])


@pytest.mark.parametrize("name", ["blobs.onnx", "blobs.pt2"])
def test_no_folder_of_this_machine_is_in_a_file(export: Export, name: str) -> None:
    path = export(name)
    if name.endswith(".pt2"):
        with zipfile.ZipFile(path) as archive:
            content = b"".join(map(archive.read, archive.namelist()))
    else:
        content = path.read_bytes()
    assert not re.search(rb"site-packages|conftest\.py|/src/pacavit", content)


def test_pixels_are_bytes_with_channels_last(export: Export) -> None:
    session = onnxruntime.InferenceSession(export("blobs.onnx", input="uint8"))
    [images] = session.get_inputs()
    assert images.shape == ["batch", "height", "width", 3]
    assert images.type == "tensor(uint8)"


def test_a_fixed_size_is_the_only_one(export: Export) -> None:
    loaded = load_model(export("blobs.onnx", size=(8, 8)))
    assert loaded.exported is not None
    assert loaded.exported.facts.size == (8, 8)
    assert loaded.exported.engine(torch.zeros(3, 3, 8, 8))[0].shape == (3, 10)
    with pytest.raises(CheckpointError, match=r"images of 8 x 8 .* only, not of 8 x 9"):
        loaded.exported.engine(torch.zeros(1, 3, 8, 9))


def test_triton_gets_dynamic_batching_and_labels(export: Export) -> None:
    folder = export("served", to="triton", input="uint8")
    assert sorted(str(each.relative_to(folder)) for each in folder.rglob("*")) == [
        "1",
        "1/model.onnx",
        "config.pbtxt",
        "labels.txt",
    ]
    config = (folder / "config.pbtxt").read_text()
    assert config == (
        'name: "served"\n'
        'backend: "onnxruntime"\n'
        "max_batch_size: 32\n"
        "input [\n"
        "  {\n"
        '    name: "images"\n'
        "    data_type: TYPE_UINT8\n"
        "    dims: [ -1, -1, 3 ]\n"
        "  }\n"
        "]\n"
        "output [\n"
        "  {\n"
        '    name: "logits"\n'
        "    data_type: TYPE_FP32\n"
        "    dims: [ 10 ]\n"
        '    label_filename: "labels.txt"\n'
        "  }\n"
        "]\n"
        "dynamic_batching {\n"
        "  max_queue_delay_microseconds: 2000\n"
        "}\n"
    )
    assert (folder / "labels.txt").read_text().split() == [str(digit) for digit in range(10)]


def test_a_writer_has_a_reader_of_its_suffix() -> None:
    readers = {READERS.get(name).suffix for name in READERS}
    for name in WRITERS:
        writer = WRITERS.get(name)
        assert writer.suffix in readers | {None}
        assert writer.suffix or writer.folder
        assert "fp32" in writer.precisions
        assert {*writer.casts} <= {*writer.precisions}
