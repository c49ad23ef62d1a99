"""The verb: what is refused, what is removed, and what the other verbs make of a file."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from pacavit import api
from pacavit.clustering import Clustering
from pacavit.engine.exported import METADATA_KEY, find_exported
from pacavit.engine.weights.load import load_model
from pacavit.errors import CheckpointError, PacavitError
from pacavit.export import export as module
from pacavit.tasks.graph import ClassifierGraph
from pacavit.utils.progress import show_progress
from pacavit_cli.main import main

Export = Callable[..., Path]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "noise.png"
    pixels = np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_the_command_reports_what_it_wrote(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "blobs.pt2"
    assert main(["export", str(weights), str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"wrote {out}: pt2, " in printed
    assert "MB, fp32, float images of any size\n" in printed
    [difference] = re.findall(r"agrees with the network: largest difference (\S+)", printed)
    assert float(difference) < 1e-5
    assert "validation images of digits of 32 x 32, 24 x 32, 40 x 48 pixels" in printed
    assert [each.name for each in out.parent.iterdir()] == ["blobs.pt2"]


def test_a_file_that_disagrees_is_removed(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(graph: ClassifierGraph, *, in_place: bool) -> nn.Module:
        with torch.no_grad():
            graph.network.get_parameter("head.bias")[3] += 0.01
        return graph

    monkeypatch.setattr(module, "optimize", spoil)
    old = tmp_path / "old.pt2"
    old.write_text("of an earlier export")
    for out in (tmp_path / "new.pt2", old):
        with pytest.raises(PacavitError, match=r"differs from the network by .* it was removed"):
            api.export(weights, out, overwrite=True)
    assert [each.name for each in tmp_path.iterdir()] == ["old.pt2"]
    assert old.read_text() == "of an earlier export"


@pytest.mark.parametrize("name", ["blobs.pt2", "folder"])
def test_only_exports_are_replaced(weights: Path, tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {"to": "openvino"} if name == "folder" else {}
    api.export(weights, tmp_path / name, **options)
    with pytest.raises(PacavitError, match="exists; give --overwrite"):
        api.export(weights, tmp_path / name, **options)
    api.export(weights, tmp_path / name, overwrite=True, **options)
    assert [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("options", [{}, {"input": "uint8"}], ids=["float", "uint8"])
def test_predict_and_evaluate_take_a_file_like_a_run(
    export: Export, weights: Path, image: Path, options: dict[str, str]
) -> None:
    file = export("blobs.onnx", **options)
    [found], [expected] = (
        api.predict(file, [image], top_k=10),
        api.predict(weights, [image], top_k=10),
    )
    found_top, expected_top = dict(found.top), dict(expected.top)  # type: ignore[attr-defined]
    assert found_top == pytest.approx(expected_top, abs=1e-5)
    one, other = api.evaluate(file), api.evaluate(weights)
    assert one.num_images == other.num_images
    assert dict(one.scores) == pytest.approx(dict(other.scores), abs=1e-4)


def test_explain_shows_what_outputs_alone_tell(
    export: Export, weights: Path, image: Path, tmp_path: Path
) -> None:
    file = export("blobs.onnx")
    for source, name in ((file, "file"), (weights, "weights")):
        [shown] = api.explain(source, image, tmp_path / name, method="occlusion")
        assert shown.error is None
    maps = [
        np.asarray(Image.open(next((tmp_path / name).rglob("*occlusion*.png"))))
        for name in ("file", "weights")
    ]
    assert np.abs(maps[0].astype(int) - maps[1]).max() <= 1
    [shown] = api.explain(file, image, tmp_path / "default")
    assert any((tmp_path / "default").rglob("*occlusion*.png"))
    with pytest.raises(PacavitError, match="GradCam needs gradients, which an exported file has"):
        api.explain(file, image, tmp_path / "grad", method="grad_cam")


def spoiled(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of an ONNX file with another description."""
    proto = onnx.load(source)
    [entry] = [each for each in proto.metadata_props if each.key == METADATA_KEY]
    text = json.loads(entry.value)
    change(text)
    entry.value = json.dumps(text)
    onnx.save(proto, target)
    return target


def repacked(source: Path, target: Path, part: str, content: bytes) -> Path:
    """A copy of an archive with another part."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            if name != f"{root}/{part}":
                new.writestr(name, old.read(name))
        new.writestr(f"{root}/{part}", content)
    return target


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, export: Export, weights: Path) -> Path:
    """A folder of files that do not suit."""
    folder = tmp_path_factory.mktemp("files")
    shutil.copy(weights, folder / "weights.safetensors")
    shutil.copy(export("blobs.onnx"), folder / "good.onnx")
    content = export("blobs.onnx").read_bytes()
    (folder / "half.onnx").write_bytes(content[: len(content) // 2])
    (folder / "text.onnx").write_text("404: not found")
    proto = onnx.load(export("blobs.onnx"))
    proto.metadata_props.clear()
    onnx.save(proto, folder / "others.onnx")
    spoiled(export("blobs.onnx"), folder / "newer.onnx", lambda text: text.update(format_version=9))
    spoiled(export("blobs.onnx"), folder / "empty.onnx", lambda text: text.pop("export"))

    def other_size(text: dict[str, Any]) -> None:
        text["export"]["size"] = [7, 7]

    spoiled(export("blobs.onnx"), folder / "size.onnx", other_size)

    def two_outputs(text: dict[str, Any]) -> None:
        text["export"]["outputs"] = ["logits", "more"]

    spoiled(export("blobs.onnx"), folder / "outputs.onnx", two_outputs)

    def as_bytes(text: dict[str, Any]) -> None:
        text["export"]["input"] = "uint8"

    spoiled(export("blobs.onnx"), folder / "bytes.onnx", as_bytes)
    shutil.copy(export("blobs.xml"), folder / "alone.xml")
    (folder / "text.xml").write_text("<net")
    (folder / "text.bin").write_bytes(b"")
    (folder / "text.pt2").write_text("PK")
    model = zipfile.ZipFile(export("blobs.pt2"))
    root = model.namelist()[0].partition("/")[0]
    graph = model.read(f"{root}/models/model.json").decode()
    evil = graph.replace("torch.ops.aten.relu.default", "torch.hub.load")
    repacked(export("blobs.pt2"), folder / "evil.pt2", "models/model.json", evil.encode())
    eval_ = re.sub(r"Symbol\('(\w+)'", r"exec('\1'", graph, count=1)
    repacked(export("blobs.pt2"), folder / "eval.pt2", "models/model.json", eval_.encode())
    samples = BytesIO()
    torch.save(Path("x"), samples)
    part = "data/sample_inputs/model.pt"
    repacked(export("blobs.pt2"), folder / "pickle.pt2", part, samples.getvalue())
    (folder / "served").mkdir()
    (folder / "served" / "config.pbtxt").write_text("")
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("notes")
    return folder


IN, EXPORT = "predict {files}/", "export {files}/weights.safetensors {files}/new"
ROWS = [
    ("no suffix", EXPORT, ["does not tell the format", ".onnx (onnx)", "--to openvino or triton"]),
    ("unknown format", EXPORT + " --to tflite", ["unknown export format 'tflite'", "known: onnx"]),
    ("another suffix", EXPORT + ".pt2 --to onnx", ["no name for the format onnx", ".onnx"]),
    ("a file for triton", EXPORT + ".onnx --to triton", ["format triton; name a folder"]),
    ("precision", EXPORT + ".onnx --precision bf16", ["onnx has no precision 'bf16'", "fp16"]),
    ("int8", EXPORT + ".pt2 --int8", ["format pt2 has no precision 'int8'", "fp32, fp16, bf16"]),
    ("both", EXPORT + ".onnx --int8 --precision fp16", ["--int8 and --precision fp16 exclude"]),
    ("no data", "export cifar10_nano_conv {files}/new.onnx --int8", ["of cifar10", "--data"]),
    ("input", EXPORT + ".onnx --input bytes", ["input must be float or uint8, not 'bytes'"]),
    ("size", EXPORT + ".onnx --size 0 8", ["size 0 x 8 must be of 1 to"]),
    ("in the way", "export {files}/good.onnx {files}/good.onnx", ["is an exported file"]),
    ("there", EXPORT[:-3] + "good.onnx", ["good.onnx exists; give --overwrite"]),
    ("others' folder", EXPORT[:-3] + "notes --to triton", ["holds other files than an exported"]),
    ("in a file", EXPORT[:-3] + "good.onnx/x.onnx", ["good.onnx is a file, so"]),
    ("missing", IN + "none.onnx x.png", ["no exported file at", "none.onnx"]),
    ("half a file", IN + "half.onnx x.png", ["half.onnx is truncated or no ONNX file"]),
    ("text", IN + "text.onnx x.png", ["text.onnx is truncated or no ONNX file"]),
    ("others' file", IN + "others.onnx x.png", ["others.onnx was not written by pacavit export"]),
    ("another version", IN + "newer.onnx x.png", ["newer.onnx has format version 9", "reads 1"]),
    ("broken facts", IN + "empty.onnx x.png", ["inside", "empty.onnx is broken", "export"]),
    ("fixed size", IN + "size.onnx {image}", ["takes images of 7 x 7", "not of 32 x 32"]),
    ("outputs", IN + "outputs.onnx {image}", ["has 1 outputs, and its description names 2"]),
    ("another input", IN + "bytes.onnx {image}", ["must have one, 'images', of color images"]),
    ("xml alone", IN + "alone.xml x.png", ["needs alone.bin beside it"]),
    ("text as xml", IN + "text.xml x.png", ["text.xml is truncated or no OpenVINO file"]),
    ("text as pt2", IN + "text.pt2 x.png", ["text.pt2 is truncated or no .pt2 file"]),
    ("function", IN + "evil.pt2 x.png", ["evil.pt2 is not opened", "torch.hub.load"]),
    ("expression", IN + "eval.pt2 x.png", ["eval.pt2 is not opened", "could run code"]),
    ("pickle", IN + "pickle.pt2 x.png", ["pickle.pt2 is truncated or no .pt2 file"]),
    ("folder", IN + "served x.png", ["is a Triton folder without 1/model.onnx"]),
    (
        "start of a training",
        "train digits --out {files}/run --set model.init={files}/good.onnx",
        ["good.onnx is an exported file, whose weights only its engine can use"],
    ),
]


@pytest.mark.parametrize(("command", "expected"), [row[1:] for row in ROWS], ids=lambda _: "")
def test_what_does_not_suit_is_one_line(
    files: Path,
    image: Path,
    command: str,
    expected: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(files.iterdir())
    words = [word.format(files=files, image=image) for word in command.split()]
    capsys.readouterr()
    assert main(words) == 2
    [line] = [each for each in capsys.readouterr().err.splitlines() if each.startswith("error: ")]
    for part in expected:
        assert part in line
    assert sorted(files.iterdir()) == before


def test_a_part_that_cannot_be_exported_is_named_before_work_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "draws points at random"
    monkeypatch.setattr(Clustering, "export_refusal", lambda self: reason)
    monkeypatch.setattr(module, "make_program", None)
    with pytest.raises(PacavitError, match=rf"cannot be exported: .*Clustering, {reason}$"):
        api.export("cifar10_nano_conv", tmp_path / "new.onnx")
    assert not list(tmp_path.iterdir())


def test_all_other_paths_are_no_exported_files(tmp_path: Path, weights: Path) -> None:
    assert find_exported(tmp_path) is None
    assert find_exported(weights) is None
    assert find_exported(Path("cifar10_nano_conv")) is None


def test_a_missing_library_is_named(
    weights: Path, tmp_path: Path, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = export("blobs.onnx")

    def missing(name: str, *arguments: object) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(
        CheckpointError, match=r"need the library onnxruntime; .*'pacavit\[export\]"
    ):
        load_model(file)
    with pytest.raises(PacavitError, match=r"onnx needs onnx, onnxscript, onnxruntime; install"):
        api.export(weights, tmp_path / "x.onnx")


class OneSize(nn.Module):
    """A graph for images of 32 x 32."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.ones(3, 32, 32))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.position).mean((2, 3))


def test_a_network_for_one_size_is_exported_for_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    graph, example = ClassifierGraph(OneSize()).eval(), torch.zeros(2, 3, 32, 32)
    with show_progress(Console()):
        program, any_size = module._trace(graph, example, any_size=True)
    assert not any_size
    assert "not for images of any size, only for 32 x 32: " in capsys.readouterr().out
    assert program.module()(torch.zeros(5, 3, 32, 32))[0].shape == (5, 3)
