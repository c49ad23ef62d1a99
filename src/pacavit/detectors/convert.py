"""Recognize the authors' detection checkpoints, and rename their weights for our detectors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from pacavit.errors import CheckpointError

__all__ = ["DETECTOR_PREFIXES", "DetectorFacts", "convert_detector", "recognize_detector"]

DETECTOR_PREFIXES = ("neck.", "rpn_head.", "roi_head.")
"""Beginnings of the names of weights outside the backbone, as in mmdetection."""

_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^neck\.lateral_convs\.(\d+)\.conv\.", r"neck.inner_blocks.\1.0."),
        (r"^neck\.fpn_convs\.(\d+)\.conv\.", r"neck.layer_blocks.\1.0."),
        (r"^rpn_head\.rpn_conv\.", "rpn.head.conv.0.0."),
        (r"^rpn_head\.rpn_cls\.", "rpn.head.cls_logits."),
        (r"^rpn_head\.rpn_reg\.", "rpn.head.bbox_pred."),
        (r"^roi_head\.bbox_head\.shared_fcs\.0\.", "roi_heads.box_head.fc6."),
        (r"^roi_head\.bbox_head\.shared_fcs\.1\.", "roi_heads.box_head.fc7."),
        (r"^roi_head\.bbox_head\.fc_cls\.", "roi_heads.box_predictor.cls_score."),
        (r"^roi_head\.bbox_head\.fc_reg\.", "roi_heads.box_predictor.bbox_pred."),
        (r"^roi_head\.mask_head\.convs\.(\d+)\.conv\.", r"roi_heads.mask_head.\1.0."),
        (r"^roi_head\.mask_head\.upsample\.", "roi_heads.mask_predictor.conv5_mask."),
        (r"^roi_head\.mask_head\.conv_logits\.", "roi_heads.mask_predictor.mask_fcn_logits."),
    )
]
_CLASSIFIER = "roi_head.bbox_head.fc_cls.weight"
_USUAL_OPTIONS = {"channels": 256, "fc_channels": 1024, "mask_channels": 256, "mask_convs": 4}


class DetectorFacts(NamedTuple):
    """What the shapes of a detector's weights determine.

    Attributes:
        name: registered name of the detector.
        options: named options in which it differs from the defaults.
        num_classes: classes, without the background.
    """

    name: str
    options: Mapping[str, Any]
    num_classes: int


def recognize_detector(weights: Mapping[str, Tensor]) -> DetectorFacts:
    """The detector that has these weights, in the published variant.

    Args:
        weights: those with ``DETECTOR_PREFIXES``.

    Raises:
        CheckpointError: there is no layer ``roi_head.bbox_head.fc_cls``, in which Faster and Mask
            R-CNN of mmdetection end, or no ``neck.lateral_convs``.
    """
    last, lateral = weights.get(_CLASSIFIER), weights.get("neck.lateral_convs.0.conv.weight")
    if last is None or last.ndim != 2:
        raise CheckpointError(
            f"its detector has no {_CLASSIFIER}; of detectors, Faster R-CNN and Mask R-CNN are read"
        )
    if lateral is None or lateral.ndim != 4:
        raise CheckpointError("its detector has no feature pyramid, neck.lateral_convs")
    found = {"channels": len(lateral), "fc_channels": last.shape[1]}
    convs = [
        weights[name]
        for name in weights
        if re.fullmatch(r"roi_head\.mask_head\.convs\.\d+\.conv\.weight", name)
    ]
    if convs:
        found |= {"mask_channels": len(convs[0]), "mask_convs": len(convs)}
    options = {name: value for name, value in found.items() if value != _USUAL_OPTIONS[name]}
    return DetectorFacts("mask_rcnn" if convs else "faster_rcnn", options, len(last) - 1)


def convert_detector(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under names of mmdetection -> weights under those of the published variant.

    Args:
        weights: those with ``DETECTOR_PREFIXES``.

    Returns:
        A state dict without the backbone; weights that have no place in our detectors keep their
        names. The order of classes is the same in both, background last.
    """
    return {_rename(name): tensor for name, tensor in weights.items()}


def _rename(name: str) -> str:
    for pattern, replacement in _RULES:
        renamed, count = pattern.subn(replacement, name)
        if count:
            return renamed
    return name
