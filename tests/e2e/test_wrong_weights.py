"""Weights that do not suit: one clear line on stderr, exit code 2, and nothing is written."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

import pacavit.models  # noqa: F401 (registers the models with timm)
from pacavit_cli.main import main

TRAIN = "train digits --out {files}/new --set model.name="
RESNET = TRAIN + "resnet10t --set model.init="
FROM = " --set model.init={files}/"
TEACHER = "train digits --out {files}/new --set train.teacher="
CONVERT = "convert {files}/"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    state = timm.create_model("resnet10t").state_dict()
    torch.save(state, folder / "resnet.pth")
    torch.save(dict(list(state.items())[:30]), folder / "third.pth")
    save_file(state, folder / "resnet.safetensors")
    for name in ("resnet.pth", "resnet.safetensors"):
        content = (folder / name).read_bytes()
        (folder / f"half_{name}").write_bytes(content[: len(content) // 2])
    (folder / "text.pth").write_text("404: not found")
    (folder / "pickle.pth").write_bytes(pickle.dumps({"weights": Path("x")}))
    torch.save({"epoch": 3}, folder / "empty.pth")
    torch.save([1, 2], folder / "list.pth")
    return folder


ROWS = [
    (
        "architecture",
        TRAIN + "efficientnet_b0 --set model.init={files}/resnet.pth",
        ["of the back"],
    ),
    (
        "width",
        TRAIN + "resnet14t --set model.init={files}/third.pth",
        ["resnet14t", "half is needed"],
    ),
    ("a third", RESNET + "{files}/third.pth", ["third.pth does not fit resnet10t", "layer"]),
    ("half a file", RESNET + "{files}/half_resnet.pth", ["half_resnet.pth", "truncated"]),
    ("half safetensors", RESNET + "{files}/half_resnet.safetensors", ["half_resnet.safetensors"]),
    ("text", RESNET + "{files}/text.pth", ["text.pth", "no checkpoint of PyTorch"]),
    ("pickle", RESNET + "{files}/pickle.pth", ["pickle.pth", "nothing in it was executed"]),
    ("no tensors", RESNET + "{files}/empty.pth", ["empty.pth", "no named tensors"]),
    ("a list", RESNET + "{files}/list.pth", ["list.pth", "a list instead of named weights"]),
    ("missing", RESNET + "{files}/none.pth", ["none.pth", "no run folder or weights file"]),
    ("URL", RESNET + "https://example.org/a.pth", ["is not downloaded", "timm:NAME"]),
    (
        "timm unnamed",
        RESNET + "resnet10t",
        ["weights of timm, write timm:resnet10t"],
    ),
    ("timm unknown", RESNET + "timm:resnet81", ["unknown timm model 'resnet81'", "did you mean"]),
    ("model unknown", TRAIN + "resnet81", ["unknown model 'resnet81'", "'resnet18'"]),
    ("hub unnamed", RESNET + "hf-hub:", ["hf-hub:"]),
    ("teacher missing", TEACHER + "no/run", ["no run folder or weights file at no/run"]),
    (
        "teacher's classes",
        TEACHER + "cifar10_nano_conv",
        ["not know the classes 0; 1; 2 (and 7"],
    ),
    (
        "weight of imitation",
        TEACHER + "x --set train.distillation_weight=2.0",
        ["distillation_wei"],
    ),
    ("kind of imitation", TEACHER + "x --set train.distillation=warm", ["'soft' or 'hard'"]),
    ("convert unnamed", CONVERT + "resnet.pth {files}/new.safetensors", ["as in --model resnet50"]),
    (
        "convert another",
        CONVERT + "resnet.pth {files}/new.safetensors --model resnet50",
        ["the file does not fit resnet50"],
    ),
    (
        "convert unknown",
        CONVERT + "resnet.pth {files}/new.safetensors --model resnet81",
        ["unknown model 'resnet81'", "did you mean"],
    ),
]


@pytest.mark.parametrize(("command", "words"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS])
def test_one_line_and_exit_code_2(
    command: str,
    words: list[str],
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(files)
    arguments = command.format(files=files).split()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    (line,) = error.strip().splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words), line
    assert not (files / "new").exists()
    assert not (files / "new.safetensors").exists()
