"""Scores of boxes: what they are, and that methods explain them."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pacavit.detectors import DETECTORS, Detected, Detector, Target
from pacavit.errors import PacavitError
from pacavit.explain import METHODS, BoxScores, method_title
from pacavit.models import Pyramid, build_pyramid

SIZE = (24, 32)
BOX = (8.0, 4.0, 20.0, 12.0)  # x1 y1 x2 y2


class Same(nn.Module):
    """The image as its only map."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images * 1]


class Brightness(Detector):
    """Finds an object of class 1 in BOX, whose score is the mean of the first channel there."""

    has_masks = False
    loss_names = ()

    def losses(
        self, images: Tensor, targets: Sequence[Target], sizes: Sequence[tuple[int, int]]
    ) -> dict[str, Tensor]:
        raise NotImplementedError

    def forward(self, images: Tensor) -> list[Detected]:
        boxes = torch.tensor([BOX])
        values = self.class_logits(self.backbone(images), SIZE, boxes.expand(len(images), 4))
        return [Detected(boxes, torch.tensor([1]), row[1:].clamp(0, 1)) for row in values]

    def class_logits(self, maps: Sequence[Tensor], size: tuple[int, int], boxes: Tensor) -> Tensor:
        values = []
        for image, box in zip(maps[0], boxes.int().tolist(), strict=True):
            left, top, right, bottom = box
            values.append(image[0, top:bottom, left:right].mean())
        means = torch.stack(values)
        return torch.stack([-means, means], 1)

    def classifiers(self) -> Sequence[nn.Module]:
        return ()


@pytest.fixture
def scores() -> BoxScores:
    detector = Brightness(Pyramid(Same(), (3,), (1,)), 2)
    return BoxScores(detector, torch.tensor([BOX])).eval()


def outside(found: Tensor) -> Tensor:
    """The values of a map outside of the box."""
    inside = torch.zeros(SIZE, dtype=torch.bool)
    inside[4:12, 8:20] = True
    return found[~inside]


def test_each_image_has_the_logits_of_its_box() -> None:
    detector = Brightness(Pyramid(Same(), (3,), (1,)), 2)
    boxes = torch.tensor([BOX, (0, 0, 32, 24)])
    images = torch.rand(2, 3, *SIZE)
    logits = BoxScores(detector, boxes)(images)
    assert logits[:, 1].tolist() == pytest.approx(
        [float(images[0, 0, 4:12, 8:20].mean()), float(images[1, 0].mean())]
    )
    copies = BoxScores(detector, boxes)(images.repeat(3, 1, 1, 1))
    assert torch.equal(copies, logits.repeat(3, 1))
    with pytest.raises(ValueError, match="no copies"):
        BoxScores(detector, boxes)(images[:1])


def test_similarity_is_score_times_overlap(scores: BoxScores) -> None:
    images = torch.full((1, 3, *SIZE), 0.5)
    assert scores.similarities(images).tolist() == [[0, pytest.approx(0.5)]]
    half = BoxScores(scores.detector, torch.tensor([[8.0, 4, 20, 20]]))
    assert half.similarities(images)[0, 1] == pytest.approx(0.25)


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_maps_lie_inside_the_box(scores: BoxScores, method: str) -> None:
    pytest.importorskip("captum")
    images = torch.rand(1, 3, *SIZE)
    found = METHODS.create(method, scores, options={})(images, torch.tensor([1]))[0]
    assert found[4:12, 8:20].mean() > 10 * outside(found).mean()


def test_d_rise_finds_the_pixels_that_matter(scores: BoxScores) -> None:
    images = torch.ones(1, 3, *SIZE)
    method = METHODS.create("d_rise", scores, options={"masks": 1000, "cells": 8})
    found = method(images, torch.tensor([1]))[0]
    assert found.shape == SIZE
    assert found[5:11, 10:18].mean() > 5 * outside(found).abs().mean()
    assert torch.equal(found, method(images, torch.tensor([1]))[0])
    # No object of the other class is found, however the image is altered.
    assert not method(images, torch.tensor([0])).any()


def test_d_rise_of_an_image_does_not_depend_on_the_others(scores: BoxScores) -> None:
    images = torch.rand(3, 3, *SIZE)
    both = BoxScores(scores.detector, torch.tensor([BOX] * 3)).eval()
    options = {"masks": 20, "cells": 4}
    found = METHODS.create("d_rise", both, options=options)(images, torch.tensor([1, 0, 1]))
    alone = METHODS.create("d_rise", scores, options=options)(images[2:], torch.tensor([1]))
    assert found[2].any()
    torch.testing.assert_close(found[2:], alone)


def test_d_rise_has_its_own_name() -> None:
    assert (method_title("d_rise"), method_title("grad_cam")) == ("D-RISE", "grad cam")


def test_d_rise_refuses_classifiers_and_options_out_of_range(scores: BoxScores) -> None:
    with pytest.raises(PacavitError, match="d_rise explains objects"):
        METHODS.create("d_rise", nn.Flatten(), options={})
    with pytest.raises(PacavitError, match="masks and cells"):
        METHODS.create("d_rise", scores, options={"masks": 0})


@pytest.mark.parametrize("name", ["faster_rcnn", "fcos", "watershed"])
@pytest.mark.parametrize("method", ["cluster_contributions", "class_map", "relevance", "grad_cam"])
def test_methods_explain_all_detectors(name: str, method: str) -> None:
    if method == "grad_cam":
        pytest.importorskip("pytorch_grad_cam")
    torch.manual_seed(0)
    backbone = build_pyramid(
        "pacavit_nano", embed_dims=(8, 12, 16), num_heads=(2, 2, 4), stem_dims=(4, 8)
    )
    options: dict[str, dict[str, Any]] = {
        "faster_rcnn": {"channels": 8, "fc_channels": 8},
        "fcos": {"channels": 64, "convs": 1},
        "watershed": {"head_options": {"channels": 8}},
    }
    detector = DETECTORS.create(name, backbone, 2, options=options[name]).eval()
    scores = BoxScores(detector, torch.tensor([BOX]))
    found = METHODS.create(method, scores, options={})(torch.randn(1, 3, *SIZE), torch.tensor([1]))
    assert found.shape == (1, *SIZE)
    assert found.isfinite().all()
    assert found.max() > 0
