"""The single-stage detector."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pacavit.detectors import Fcos, Target
from pacavit.errors import RecipeError
from pacavit.models import Pyramid, build_pyramid

CLASSES = 3


def test_it_has_the_parts_of_torchvision() -> None:
    with torch.device("meta"):
        detector = Fcos(build_pyramid("resnet50", (2, 3, 4)), 91)
    # torchvision states 32,269,600 for fcos_resnet50_fpn, of which its ResNet has 23,454,912.
    outside = sum(p.numel() for n, p in detector.named_parameters() if n[:8] != "backbone")
    assert outside == 8_814_688
    assert detector.neck.strides == (8, 16, 32, 64, 128)


def test_a_tiny_image_can_be_learned(
    backbone: Pyramid, images: Tensor, targets: list[Target]
) -> None:
    detector = Fcos(backbone, CLASSES, channels=64, convs=1).train()
    optimizer = torch.optim.AdamW(detector.parameters(), 3e-3)
    totals = []
    for _ in range(3):
        total = sum(detector.losses(images, targets, [(64, 96)] * 2).values(), torch.zeros(()))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[2] < totals[0]


def test_the_score_of_a_result_is_that_of_its_position(backbone: Pyramid, images: Tensor) -> None:
    torch.manual_seed(0)
    detector = Fcos(backbone, CLASSES, channels=64, convs=1, nms_threshold=1.0).eval()
    head = detector.fcos.head.regression_head
    torch.nn.init.constant_(head.bbox_reg.bias, 2.0)  # boxes of some extent
    torch.nn.init.zeros_(head.bbox_ctrness.weight)
    with torch.no_grad():
        (found,) = detector(images[:1])
        left, top, right, bottom = found.boxes.T
        # Others are clipped, which hides whose box it was.
        rows = ((left > 0) & (top > 0) & (right < 96) & (bottom < 64)).nonzero()[:4, 0]
        maps = detector.backbone(images[:1].expand(4, -1, -1, -1))
        logits = detector.class_logits(maps, (64, 96), found.boxes[rows])
        logits = logits[range(4), found.labels[rows].tolist()]
    # A score is the geometric mean of the probability and the centerness.
    torch.testing.assert_close((logits.sigmoid() * 0.5).sqrt(), found.scores[rows])


def test_boxes_beyond_512_pixels_are_exact_under_autocast(backbone: Pyramid) -> None:
    detector = Fcos(backbone, CLASSES, channels=64, convs=1).eval()
    torch.nn.init.constant_(detector.fcos.head.regression_head.bbox_reg.bias, 2.0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (found,) = detector(torch.randn(1, 3, 32, 1100))
    inner = found.boxes[:, ::2][(found.boxes[:, ::2] > 520) & (found.boxes[:, ::2] < 1099)]
    assert len(inner) > 10
    assert (inner % 4 != 0).float().mean() > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 80}, "must be a multiple of 32 and at least 64, not 80"),
        ({"channels": 32}, "at least 64, not 32"),
        ({"convs": 0}, "convs of a detector must be above 0"),
        ({"nms_threshold": -1.0}, "nms_threshold of a detector must be from 0 to 1"),
    ],
)
def test_wrong_options_are_refused(
    backbone: Pyramid, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        Fcos(backbone, CLASSES, **options)


def test_maps_whose_strides_do_not_double_are_refused() -> None:
    with pytest.raises(RecipeError, match="strides double from one to the next, not 4, 16"):
        Fcos(build_pyramid("pacavit_nano", (0, 2), stem_stride=4), CLASSES)
