"""The authors' detection checkpoints become weights files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pacavit.detectors import FasterRcnn, MaskRcnn
from pacavit.engine import load_model
from pacavit.engine.weights.original import convert_checkpoint
from pacavit.engine.weights.transfer import initialize
from pacavit.errors import CheckpointError
from pacavit.tasks.detection import DetectionConfig

AuthorsWeights = Callable[..., dict[str, Tensor]]
CHANNELS = (96, 192, 320, 384)


def detector(classes: int, dim: int = 16, fc: int = 24, mask_convs: int = 2) -> dict[str, Tensor]:
    """Random weights under names of mmdetection."""
    shapes: dict[str, tuple[int, ...]] = {}
    for index, channels in enumerate(CHANNELS):
        shapes[f"neck.lateral_convs.{index}.conv"] = (dim, channels, 1, 1)
        shapes[f"neck.fpn_convs.{index}.conv"] = (dim, dim, 3, 3)
    shapes["rpn_head.rpn_conv"] = (dim, dim, 3, 3)
    shapes["rpn_head.rpn_cls"] = (3, dim, 1, 1)
    shapes["rpn_head.rpn_reg"] = (12, dim, 1, 1)
    shapes["roi_head.bbox_head.fc_cls"] = (classes + 1, fc)
    shapes["roi_head.bbox_head.fc_reg"] = (4 * classes, fc)
    shapes["roi_head.bbox_head.shared_fcs.0"] = (fc, dim * 49)
    shapes["roi_head.bbox_head.shared_fcs.1"] = (fc, fc)
    for index in range(mask_convs):
        shapes[f"roi_head.mask_head.convs.{index}.conv"] = (dim, dim, 3, 3)
    if mask_convs:
        shapes["roi_head.mask_head.upsample"] = (dim, dim, 2, 2)
        shapes["roi_head.mask_head.conv_logits"] = (classes, dim, 1, 1)
    weights = {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    return weights | {f"{name}.bias": torch.randn(shape[0]) for name, shape in shapes.items()}


def save(path: Path, backbone: dict[str, Tensor], parts: dict[str, Tensor]) -> Path:
    weights = {f"backbone.{name}": value for name, value in backbone.items() if name[:5] != "head."}
    torch.save({"state_dict": weights | parts, "meta": {}}, path)
    return path


PLACES = {
    "neck.lateral_convs.2.conv.weight": "neck.inner_blocks.2.0.weight",
    "neck.fpn_convs.0.conv.bias": "neck.layer_blocks.0.0.bias",
    "rpn_head.rpn_conv.weight": "rpn.head.conv.0.0.weight",
    "rpn_head.rpn_cls.bias": "rpn.head.cls_logits.bias",
    "rpn_head.rpn_reg.weight": "rpn.head.bbox_pred.weight",
    "roi_head.bbox_head.shared_fcs.0.weight": "roi_heads.box_head.fc6.weight",
    "roi_head.bbox_head.shared_fcs.1.weight": "roi_heads.box_head.fc7.weight",
    "roi_head.bbox_head.fc_cls.weight": "roi_heads.box_predictor.cls_score.weight",
    "roi_head.bbox_head.fc_reg.bias": "roi_heads.box_predictor.bbox_pred.bias",
    "roi_head.mask_head.convs.1.conv.weight": "roi_heads.mask_head.1.0.weight",
    "roi_head.mask_head.upsample.weight": "roi_heads.mask_predictor.conv5_mask.weight",
    "roi_head.mask_head.conv_logits.bias": "roi_heads.mask_predictor.mask_fcn_logits.bias",
}


def test_every_weight_has_its_place(authors_weights: AuthorsWeights, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone, parts = authors_weights(), detector(7)
    source = save(tmp_path / "authors.pth", backbone, parts)
    done = convert_checkpoint(source, tmp_path / "ours.safetensors")
    assert (done.original, done.model) == ("pacavit_tiny_p2cconv_100_0", "pacavit_tiny")
    assert done.reinitialised == done.unexpected == ()
    model = load_model(done.path)
    network, task = model.task.model, model.recipe.task
    assert isinstance(network, MaskRcnn)
    assert network.published
    own = network.state_dict()
    for theirs, ours in PLACES.items():
        assert torch.equal(own[ours], parts[theirs]), theirs
    body = network.backbone.body.state_dict()
    assert torch.equal(body["stages.1.embed.proj.weight"], backbone["transition1.proj.weight"])
    assert isinstance(task, DetectionConfig)
    assert (model.recipe.name, task.name, task.image_size) == (
        "coco_tiny",
        "instance_segmentation",
        800,
    )
    assert task.detector_options == {
        "channels": 16,
        "fc_channels": 24,
        "mask_channels": 16,
        "mask_convs": 2,
    }
    assert model.info.class_names == tuple(f"class {number}" for number in range(1, 8))
    with torch.no_grad():
        assert len(network(torch.randn(1, 3, 64, 96))) == 1
    assert len(initialize(network, model.info, done.path)) == 1  # a run starts from all of it


def test_classes_of_coco_have_their_names_and_numbers(
    authors_weights: AuthorsWeights, tmp_path: Path
) -> None:
    source = save(tmp_path / "authors.pth", authors_weights(), detector(80, 8, 8, mask_convs=0))
    done = convert_checkpoint(source, tmp_path / "ours.safetensors")
    assert done.reinitialised == done.unexpected == ()
    model = load_model(done.path)
    assert isinstance(model.task.model, FasterRcnn)
    assert model.recipe.task.name == "detection"
    assert model.info.class_names[:2] == ("person", "bicycle")
    assert model.info.class_names[-1] == "toothbrush"
    assert model.info.objects is not None
    numbers = model.info.objects.category_ids
    assert (numbers[:3], numbers[-1], len(numbers)) == ((1, 2, 3), 90, 80)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("fc_cls", r"no roi_head.bbox_head.fc_cls.weight; of detectors, Faster R-CNN and Mask"),
        ("lateral_convs", r"no feature pyramid, neck.lateral_convs"),
    ],
)
def test_other_detectors_are_one_line(
    missing: str, message: str, authors_weights: AuthorsWeights, tmp_path: Path
) -> None:
    parts = {name: value for name, value in detector(3).items() if missing not in name}
    source = save(tmp_path / "authors.pth", authors_weights(), parts)
    with pytest.raises(CheckpointError, match=message) as caught:
        convert_checkpoint(source, tmp_path / "ours.safetensors")
    assert "\n" not in str(caught.value)
