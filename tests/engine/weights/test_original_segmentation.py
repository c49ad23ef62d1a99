"""The authors' segmentation checkpoints become weights files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pacavit.engine import load_model
from pacavit.engine.weights.original import convert_checkpoint
from pacavit.engine.weights.transfer import initialize
from pacavit.errors import CheckpointError
from pacavit.tasks.segmentation import SegmentationConfig, Segmenter

AuthorsWeights = Callable[..., dict[str, Tensor]]
CHANNELS = (96, 192, 320, 384)


class Layout:
    """Random weights under names of mmsegmentation."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}

    def conv(self, name: str, *shape: int, bias: bool = True) -> None:
        self.weights[f"{name}.weight"] = torch.randn(shape)
        if bias:
            self.weights[f"{name}.bias"] = torch.randn(shape[0])

    def norm(self, name: str, dim: int) -> None:
        for kind in ("weight", "bias", "running_mean", "running_var"):
            self.weights[f"{name}.{kind}"] = torch.rand(dim)
        self.weights[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def module(self, name: str, dim: int, in_chans: int, kernel: int = 1) -> None:
        self.conv(f"{name}.conv", dim, in_chans, kernel, kernel, bias=False)
        self.norm(f"{name}.bn", dim)


def upernet(dim: int, classes: int, auxiliary: bool = True) -> dict[str, Tensor]:
    layout = Layout()
    layout.conv("decode_head.conv_seg", classes, dim, 1, 1)
    for index in range(4):
        layout.module(f"decode_head.psp_modules.{index}.1", dim, CHANNELS[3])
    layout.module("decode_head.bottleneck", dim, CHANNELS[3] + 4 * dim, 3)
    for index in range(3):
        layout.module(f"decode_head.lateral_convs.{index}", dim, CHANNELS[index])
        layout.module(f"decode_head.fpn_convs.{index}", dim, dim, 3)
    layout.module("decode_head.fpn_bottleneck", dim, 4 * dim, 3)
    if auxiliary:
        layout.conv("auxiliary_head.conv_seg", classes, 256, 1, 1)
        layout.module("auxiliary_head.convs.0", 256, CHANNELS[2], 3)
    return layout.weights


def paca(dim: int, classes: int) -> dict[str, Tensor]:
    """The layers of the paper under invented names: the authors' are not known to us."""
    layout, wide = Layout(), 4 * dim
    layout.conv("decode_head.conv_seg", classes, dim, 1, 1)
    for index, in_chans in enumerate(CHANNELS):
        layout.module(f"decode_head.in_projs.{index}", dim, in_chans)
    layout.module("decode_head.q", dim, wide)
    layout.module("decode_head.clusters.0", dim, wide)
    layout.conv("decode_head.clusters.1", classes, dim, 1, 1)
    for name in "k", "v":
        layout.conv(f"decode_head.{name}.0", dim, wide)
        layout.norm(f"decode_head.{name}.1", dim)
    layout.module("decode_head.out", dim, dim)
    return layout.weights


def save(path: Path, backbone: dict[str, Tensor], head: dict[str, Tensor]) -> Path:
    weights = {f"backbone.{name}": value for name, value in backbone.items() if name[:5] != "head."}
    torch.save({"state_dict": weights | head, "meta": {}}, path)
    return path


PLACES = {
    "paca": {
        "q.conv.weight": "to_queries.conv.weight",
        "q.bn.running_var": "to_queries.norm.running_var",
        "clusters.0.conv.weight": "clustering.conv.weight",
        "clusters.1.bias": "to_clusters.bias",
        "k.0.weight": "to_keys.linear.weight",
        "k.0.bias": "to_keys.linear.bias",
        "k.1.bias": "to_keys.norm.bias",
        "v.0.weight": "to_values.linear.weight",
        "v.1.weight": "to_values.norm.weight",
        "in_projs.2.bn.weight": "laterals.2.norm.weight",
        "out.conv.weight": "proj.conv.weight",
        "conv_seg.bias": "classifier.bias",
    },
    "upernet": {
        "psp_modules.3.1.conv.weight": "pooled.3.conv.weight",
        "psp_modules.0.1.bn.running_mean": "pooled.0.norm.running_mean",
        "bottleneck.bn.weight": "context.norm.weight",
        "lateral_convs.1.conv.weight": "laterals.1.conv.weight",
        "fpn_convs.2.conv.weight": "smooth.2.conv.weight",
        "fpn_bottleneck.conv.weight": "fuse.conv.weight",
        "conv_seg.weight": "classifier.weight",
    },
}


@pytest.mark.parametrize("name", PLACES)
def test_every_weight_has_its_place(
    name: str, authors_weights: AuthorsWeights, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    backbone = authors_weights(clusters=(200, 200, 200, 0))
    head = paca(16, 7) if name == "paca" else upernet(16, 7)
    source = save(tmp_path / "authors.pth", backbone, head)
    done = convert_checkpoint(source, tmp_path / "ours.safetensors")
    assert (done.original, done.model) == (None, "pacavit_tiny")
    assert done.settings == {"num_clusters": (200, 200, 200, 0)}
    assert done.reinitialised == done.unexpected == ()
    model = load_model(done.path)
    network = model.task.model
    assert isinstance(network, Segmenter)
    own = network.head.state_dict()
    for theirs, ours in PLACES[name].items():
        assert torch.equal(own[ours], head[f"decode_head.{theirs}"]), theirs
    if name == "upernet":
        assert torch.equal(own["auxiliary.2.bias"], head["auxiliary_head.conv_seg.bias"])
    body = network.backbone.body.state_dict()
    assert torch.equal(body["stages.1.embed.proj.weight"], backbone["transition1.proj.weight"])
    task = model.recipe.task
    assert isinstance(task, SegmentationConfig)
    assert (model.recipe.name, task.head) == (f"ade20k_tiny_{name}", name)
    assert task.head_options == {"channels": 16}
    assert model.info.class_names == tuple(f"class {number}" for number in range(1, 8))
    assert model.info.masks is not None
    assert model.info.masks.values == tuple(range(1, 8))
    assert model.recipe.model.init is None
    with torch.no_grad():
        assert network(torch.randn(1, 3, 64, 96)).logits.shape == (1, 7, 16, 24)
    assert len(initialize(network, model.info, done.path)) == 1  # a run starts from all of it


def test_classes_of_ade20k_have_their_names(
    authors_weights: AuthorsWeights, tmp_path: Path
) -> None:
    backbone = authors_weights(clusters=(200, 200, 200, 0), method="mlp")
    source = save(tmp_path / "authors.pth", backbone, upernet(8, 150, auxiliary=False))
    done = convert_checkpoint(source, tmp_path / "ours.safetensors")
    assert done.settings["clustering"] == "mlp"
    assert done.reinitialised == done.unexpected == ()
    model = load_model(done.path)
    assert len(model.info.class_names) == 150
    assert model.info.class_names[:2] == ("wall", "building")
    task = model.recipe.task
    assert isinstance(task, SegmentationConfig)
    assert task.head_options == {"channels": 8, "auxiliary": False}


def test_what_is_no_such_head_is_one_line(authors_weights: AuthorsWeights, tmp_path: Path) -> None:
    backbone = authors_weights(clusters=(200, 200, 200, 0))
    without_last = {n: v for n, v in paca(16, 7).items() if "conv_seg" not in n}
    without_keys = {n: v for n, v in paca(16, 7).items() if ".k." not in n}
    for head, message in (
        (without_last, "no last layer decode_head.conv_seg"),
        (without_keys, r"no PaCa head: it has no to_values\.linear of shape \(16, 64\)"),
    ):
        source = save(tmp_path / "authors.pth", backbone, head)
        with pytest.raises(CheckpointError, match=message) as caught:
            convert_checkpoint(source, tmp_path / "ours.safetensors")
        assert "\n" not in str(caught.value)
