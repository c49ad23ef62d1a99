"""Runs start from the weights of timm, torchvision and the authors of PaCa-ViT."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor, nn

import pacavit.models  # noqa: F401 (registers the models with timm)
from pacavit import api
from pacavit.data import DataInfo
from pacavit.engine import load_model, train
from pacavit.engine.weights.foreign import imagenet_classes, normalization
from pacavit.engine.weights.transfer import initialize
from pacavit.errors import CheckpointError, UnknownNameError
from pacavit.models.match import match_weights
from pacavit.recipes import Recipe, load

INFO = DataInfo("folder", "of the test", ("a", "b"), (32, 32), (0.4,) * 3, (0.2,) * 3)


def network(name: str = "resnet10t", **arguments: Any) -> nn.Module:
    torch.manual_seed(1)
    model: nn.Module = timm.create_model(name, num_classes=2, **arguments)
    return model


def same_backbone(model: nn.Module, weights: dict[str, Tensor], classifier: str) -> bool:
    return all(
        torch.equal(value, weights[name])
        for name, value in model.state_dict().items()
        if not name.startswith(classifier)
    )


def randomize(model: nn.Module) -> nn.Module:
    """Numbers by which tensors of one shape can be told apart, in layers that start alike too."""
    torch.manual_seed(0)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and value.ndim < 2:
            value.uniform_(0.5, 1.5) if "bias" not in name else value.uniform_(-0.1, 0.1)
    return model.eval()


@pytest.mark.parametrize(
    ("torchvisions", "name"),
    [
        ("resnet18", "resnet18"),
        ("resnext50_32x4d", "resnext50_32x4d"),
        ("densenet121", "densenet121"),
        ("convnext_tiny", "convnext_tiny"),
        ("efficientnet_b0", "efficientnet_b0"),
        ("mobilenet_v2", "mobilenetv2_100"),
        ("mobilenet_v3_small", "mobilenetv3_small_100"),
        ("mnasnet1_0", "mnasnet_100"),
    ],
)
def test_torchvisions_weights_compute_the_same_in_timms_model(torchvisions: str, name: str) -> None:
    original = randomize(getattr(torchvision.models, torchvisions)(weights=None))
    for layer in original.modules():  # MobileNetV3 adds other constants to variances in timm
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 1e-5
    model = timm.create_model(name).eval()
    match = match_weights(model, original.state_dict())
    assert match.fraction == 1
    assert match.fresh == match.unexpected == ()
    model.load_state_dict(match.fitting, strict=False)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = original(images), model(images)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("torchvisions", "name"),
    [("swin_t", "swin_tiny_patch4_window7_224"), ("regnet_y_400mf", "regnety_004")],
)
def test_layers_in_another_order_are_refused(torchvisions: str, name: str, tmp_path: Path) -> None:
    torch.save(
        getattr(torchvision.models, torchvisions)(weights=None).state_dict(), tmp_path / "a.pth"
    )
    with pytest.raises(CheckpointError, match="of the backbone 0% is found, half is needed"):
        initialize(network(name), INFO, tmp_path / "a.pth")


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_ema", "state_dict_ema"])
def test_a_file_of_torch_may_be_wrapped_as_trainers_do(wrapper: str | None, tmp_path: Path) -> None:
    state = timm.create_model("resnet10t").state_dict()
    stored = {f"module.{name}": value for name, value in state.items()}
    whole = {wrapper: stored, "epoch": 3, "args": argparse.Namespace(lr=1)} if wrapper else stored
    torch.save(whole, tmp_path / "weights.pth.tar")
    model = network()
    before = model.state_dict()["fc.weight"].clone()
    lines = initialize(model, INFO, tmp_path / "weights.pth.tar")
    assert same_backbone(model, state, "fc.")
    assert torch.equal(model.state_dict()["fc.weight"], before)
    assert lines == [
        f"started from {tmp_path / 'weights.pth.tar'} (the names of the model): "
        "100.0% of the backbone",
        "newly initialized: fc",
    ]


def test_safetensors_of_timm_load_and_the_classifier_of_imagenet_stays(tmp_path: Path) -> None:
    state = timm.create_model("resnet10t").state_dict()
    save_file(state, tmp_path / "model.safetensors")
    model = timm.create_model("resnet10t")
    info = replace(INFO, class_names=imagenet_classes())
    assert len(initialize(model, info, str(tmp_path / "model.safetensors"))) == 1
    assert same_backbone(model, state, "nothing is fresh")


def test_the_authors_weights_start_a_run(
    authors_weights: Callable[..., dict[str, Tensor]], tmp_path: Path
) -> None:
    torch.save({"state_dict": authors_weights()}, tmp_path / "official.pth")
    model = network("pacavit_tiny")
    lines = initialize(model, INFO, tmp_path / "official.pth")
    assert "(the names of the authors of PaCa-ViT): 100.0% of the backbone" in lines[0]
    assert lines[1:] == ["newly initialized: head"]
    other = network("pacavit_tiny", clustering="kmeans")
    lines = initialize(other, INFO, tmp_path / "official.pth")
    assert lines[1] == "newly initialized: head"
    assert lines[2].startswith("left out: stages.0.blocks.0.clustering.depthwise.weight; ")


def cached(monkeypatch: pytest.MonkeyPatch, cache: Path, repository: str, **files: bytes) -> None:
    """Put files where the hub's client keeps what it has downloaded, and cut the network."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("a" * 40)
    snapshot = folder / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for name, content in files.items():
        (snapshot / name.replace("_", ".")).write_bytes(content)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(timm.models._hub, "get_cache_dir", lambda *_: str(cache))


def stored(state: dict[str, Tensor], folder: Path) -> bytes:
    save_file(state, folder / "stored")
    return (folder / "stored").read_bytes()


def test_timm_downloads_what_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    state = timm.create_model("resnet10t").state_dict()
    cached(
        monkeypatch,
        tmp_path / "hub",
        "timm/resnet10t.c3_in1k",
        model_safetensors=stored(state, tmp_path),
    )
    model = network()
    lines = initialize(model, INFO, "timm:resnet10t.c3_in1k")
    assert same_backbone(model, state, "fc.")
    assert lines[0].startswith("started from timm:resnet10t.c3_in1k (the names of the model): 100")
    with pytest.raises(CheckpointError, match=r"no weights for timm:resnet14t: .*; check the name"):
        initialize(network("resnet14t"), INFO, "timm:resnet14t")


def test_a_repository_of_timm_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    state = timm.create_model("resnet10t").state_dict()
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    facts = {"classifier": "fc", "num_classes": 1000, "mean": mean, "std": std}
    config = {"architecture": "resnet10t", "num_classes": 1000, "pretrained_cfg": facts}
    cached(
        monkeypatch,
        tmp_path / "hub",
        "someone/small",
        model_safetensors=stored(state, tmp_path),
        config_json=json.dumps(config).encode(),
    )
    model = network()
    assert initialize(model, INFO, "hf-hub:someone/small")[1] == "newly initialized: fc"
    assert same_backbone(model, state, "fc.")
    assert normalization("hf-hub:someone/small", "resnet10t") == (tuple(mean), tuple(std))


def test_images_are_normalized_as_the_weights_expect(tmp_path: Path) -> None:
    torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), tmp_path / "a.pth")
    half = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert normalization(str(tmp_path / "a.pth"), "tf_efficientnet_lite0") == half
    assert normalization("timm:tf_efficientnet_lite0", "resnet10t") == half
    assert normalization("cifar10_nano_conv", "pacavit_nano") is None
    assert normalization(None, "resnet10t") is None


def tiny_recipe(init: Path, **train_changes: Any) -> Recipe:
    changes = [
        f"model.init={json.dumps(str(init))}",
        "model.name=tf_efficientnet_lite0",
        "train.epochs=2",
        "train.precision=fp32",
        "train.device=cpu",
        "task.image_size=32",
        *(f"train.{name}={value}" for name, value in train_changes.items()),
    ]
    return load("digits", changes)


def test_a_run_keeps_their_normalization_even_if_the_file_is_gone(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), weights)
    recipe = tiny_recipe(weights)
    whole = train(recipe, tmp_path / "whole", progress=False)
    assert load_model(whole).info.mean == (0.5, 0.5, 0.5)
    train(recipe, tmp_path / "parts", progress=False)
    (tmp_path / "parts" / "weights.safetensors").unlink()
    last = max((tmp_path / "parts" / "checkpoints").iterdir(), key=lambda path: int(path.name[5:]))
    for path in (tmp_path / "parts" / "checkpoints").iterdir():
        if path == last:
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    weights.unlink()
    parts = train(recipe, tmp_path / "parts", resume=True, progress=False)
    assert (whole / "weights.safetensors").read_bytes() == (
        parts / "weights.safetensors"
    ).read_bytes()


class Bad:
    """An object that would run code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (print, ("executed",))


def resnet_file(tmp_path: Path, name: str = "resnet10t", tensors: int | None = None) -> Path:
    state = timm.create_model(name).state_dict()
    torch.save(dict(list(state.items())[:tensors]), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"weights.pth does not fit resnet10t: of the backbone 0% is found, half is needed",
    ):
        initialize(network(), INFO, resnet_file(tmp_path, "efficientnet_b0"))


def test_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not fit resnet26: of the backbone \d+% is"):
        initialize(network("resnet26", base_width=32), INFO, resnet_file(tmp_path, "resnet26"))


def test_less_than_half_of_the_tensors_is_refused_and_more_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"missing or of another shape: layer2\.0\."):
        initialize(network(), INFO, resnet_file(tmp_path, tensors=30))
    lines = initialize(network(), INFO, resnet_file(tmp_path, tensors=75))
    assert lines[1].startswith("newly initialized: layer4.0.bn2; ")


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    path = resnet_file(tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"weights\.pth: it is truncated or no checkpoint"):
        initialize(network(), INFO, path)
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "half.safetensors")
    half = tmp_path / "half.safetensors"
    half.write_bytes(half.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match=r"half\.safetensors"):
        initialize(network(), INFO, half)


def test_nothing_in_a_pickle_is_executed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": Bad()}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match="holds other things than weights; nothing in it was"):
        initialize(network(), INFO, tmp_path / "bad.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.org/a.pth", "is not downloaded; write timm:NAME or hf-hub:USER/NAME"),
        ("resnet18", "no run folder or file 'resnet18'; for the pretrained weights of timm, write"),
        ("there/is/no/file.pth", "no run folder or weights file at there/is/no/file.pth"),
    ],
)
def test_what_is_no_source(source: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        initialize(network(), INFO, source)


def test_an_unknown_name_of_timm_suggests_others() -> None:
    with pytest.raises(UnknownNameError, match="unknown timm model 'resnet81'; did you mean"):
        initialize(network(), INFO, "timm:resnet81")
    with pytest.raises(UnknownNameError, match="did you mean 'resnet18' or"):
        train(load("digits", ["model.name=resnet81"]), Path("never"), progress=False)


def test_a_file_without_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="there are no named tensors in it"):
        initialize(network(), INFO, tmp_path / "a.pth")


def test_converted_weights_of_timm_predict_as_timm_does(tmp_path: Path) -> None:
    original = randomize(timm.create_model("tf_efficientnet_lite0", num_classes=7))
    torch.save(original.state_dict(), tmp_path / "a.pth")
    done = api.convert(
        tmp_path / "a.pth", tmp_path / "a.safetensors", model="tf_efficientnet_lite0"
    )
    assert done.reinitialised == done.unexpected == ()
    loaded = load_model(done.path)
    assert loaded.info.mean == (0.5, 0.5, 0.5)
    assert loaded.info.class_names == tuple(f"class {index}" for index in range(7))
    crop = loaded.recipe.task.model_dump()["crop"]
    assert (crop["eval_part"], crop["interpolation"]) == (0.875, "bicubic")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded.task.model(images), original(images))


def test_converting_asks_for_the_model_of_names_that_are_not_ours(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="if it belongs to a model of timm, name that"):
        api.convert(resnet_file(tmp_path), tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="the file does not fit resnet50: of the backbone"):
        api.convert(resnet_file(tmp_path), tmp_path / "a.safetensors", model="resnet50")
    with pytest.raises(UnknownNameError, match="unknown model 'resnet81'; did you mean"):
        api.convert(resnet_file(tmp_path), tmp_path / "a.safetensors", model="resnet81")
    assert not (tmp_path / "a.safetensors").exists()
