"""Scores of regions: what they are, that methods explain them, and how regions are found."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.errors import DataError, PacavitError
from pacavit.explain import METHODS, RegionScores, connected_region, input_region
from pacavit.heads import HEADS, HeadOutput, SegmentationHead
from pacavit.models import Pyramid
from pacavit.models.pyramid import build_pyramid
from pacavit.tasks.segmentation import Segmenter

SIZE = (24, 32)
CLUSTER_METHODS = {"class_map", "attention_map", "cluster_contributions", "cluster_gradient"}
FLOW_METHODS = {"rollout", "relevance"}


class PixelHead(SegmentationHead):
    """Logits of a pixel depend on this pixel only: class 1 is its first channel, class 0 minus."""

    def __init__(
        self, in_channels: Sequence[int], strides: Sequence[int], num_classes: int
    ) -> None:
        super().__init__(in_channels, strides, num_classes)

    def forward(self, maps: Sequence[Tensor]) -> HeadOutput:
        first = maps[0][:, :1]
        return HeadOutput(torch.cat([-first, first], 1), {})


class Same(nn.Module):
    """The image as its only map."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images * 1]


@pytest.fixture
def pixels() -> Segmenter:
    return Segmenter(Pyramid(Same(), (3,), (1,)), PixelHead((3,), (1,), 2))


def network(name: str, head: str = "paca") -> Segmenter:
    """A backbone of timm with a narrow head for three classes."""
    small = {"embed_dims": (8, 12, 16), "num_heads": (2, 2, 4), "stem_dims": (4, 8)}
    backbone = build_pyramid(name, **(small if name == "pacavit_nano" else {}))
    options = {"channels": 8}
    made = HEADS.create(head, backbone.channels, backbone.strides, 3, options=options)
    return Segmenter(backbone, made).eval()


def some_regions(count: int) -> Tensor:
    regions = torch.zeros(count, *SIZE, dtype=torch.bool)
    for number, region in enumerate(regions):
        region[4 * number : 4 * number + 6, 5:20] = True
    return regions


def test_a_score_is_the_mean_of_the_enlarged_logits_over_the_region() -> None:
    segmenter, regions, images = network("pacavit_nano"), some_regions(2), torch.randn(2, 3, *SIZE)
    found = RegionScores(segmenter, regions)(images)
    logits = F.interpolate(segmenter(images).logits, SIZE, mode="bilinear", align_corners=False)
    for image in range(2):
        inside = logits[image][:, regions[image]]
        assert torch.allclose(found[image], inside.mean(1), atol=1e-5)
    copies = RegionScores(segmenter, regions)(images.repeat(3, 1, 1, 1))
    assert torch.allclose(copies, found.repeat(3, 1), atol=1e-5)
    with pytest.raises(ValueError, match="3 images are no copies of 2"):
        RegionScores(segmenter, regions)(torch.randn(3, 3, *SIZE))
    with pytest.raises(DataError, match="the region has no pixels"):
        RegionScores(segmenter, torch.stack([regions[0], regions[0] & False]))


def test_only_pixels_of_the_region_explain_a_network_of_single_pixels(pixels: Segmenter) -> None:
    images, region = torch.rand(1, 3, *SIZE) + 0.5, some_regions(1)
    scores = RegionScores(pixels, region)
    found = METHODS.create("integrated_gradients", scores, options={})(images, torch.tensor([1]))
    # The score is the mean of the first channel: each pixel adds its value over their number.
    expected = images[:, 0] * region / region.sum()
    assert torch.allclose(found, expected, atol=1e-6)
    occluded = METHODS.create("occlusion", scores, options={"window": 0.1})
    # Windows of two pixels that hold a pixel of the region reach one pixel beyond it.
    near = F.max_pool2d(region.float(), 3, stride=1, padding=1) > 0
    assert torch.equal(occluded(images, torch.tensor([1])) > 0, near)
    # Every pixel of the region speaks against class 0, so nothing explains it but rounding.
    assert occluded(images, torch.tensor([0])).max() < 1e-6


@pytest.mark.parametrize("name", ["pacavit_nano", "resnet10t"])
def test_every_method_explains_regions_or_says_why_not(name: str) -> None:
    scores = RegionScores(network(name), some_regions(2))
    images, classes = torch.randn(2, 3, *SIZE), torch.tensor([0, 2])
    refused = set()
    for method in METHODS.names():
        try:
            found = METHODS.create(method, scores, options={})(images, classes)
        except PacavitError:
            refused.add(method)
            continue
        assert found.shape == (2, *SIZE)
        assert found.isfinite().all()
    of_transformers = set() if name == "pacavit_nano" else CLUSTER_METHODS | FLOW_METHODS
    assert refused == of_transformers | {"d_rise"}


def test_maps_depend_on_the_region() -> None:
    segmenter, images = network("pacavit_nano", "upernet"), torch.randn(1, 3, *SIZE)
    for method in ("cluster_contributions", "relevance", "grad_cam", "integrated_gradients"):
        one, other = (
            METHODS.create(method, RegionScores(segmenter, region[None]), options={})(
                images, torch.tensor([1])
            )
            for region in some_regions(2)
        )
        assert not torch.allclose(one, other, rtol=1e-3)


def test_layers_of_any_backbone_are_its_maps() -> None:
    scores = RegionScores(network("resnet10t", "upernet"), some_regions(1))
    images, classes = torch.randn(1, 3, *SIZE).repeat(3, 1, 1, 1), torch.arange(3)
    coarsest, finest = (
        METHODS.create("grad_cam", scores, options=options)(images, classes)
        for options in ({}, {"layer": "maps.0"})
    )
    assert not torch.allclose(coarsest, finest)


def test_connected_pixels_share_a_side() -> None:
    labels = torch.tensor([[1, 1, 0, 1], [0, 1, 0, 1], [1, 0, 0, 1]], dtype=torch.uint8)
    found = connected_region(labels, 0, 0)
    assert found.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert connected_region(labels, 2, 0).sum() == 1
    assert connected_region(labels, 1, 2).sum() == 4
    for row, column in ((3, 0), (0, 4), (-1, 0)):
        with pytest.raises(DataError, match=f"no pixel {column},{row} .*has 4 x 3 pixels"):
            connected_region(labels, row, column)


def test_regions_keep_their_place_in_a_resized_input() -> None:
    region = torch.zeros(40, 60, dtype=torch.bool)
    region[10:20, 30:60] = True
    found = input_region(region, (20, 30))
    assert found.nonzero().amin(0).tolist() == [5, 15]
    assert found.sum() == 5 * 15
    single = torch.zeros(40, 60, dtype=torch.bool)
    single[39, 59] = True
    small = input_region(single, (7, 9))
    assert small.nonzero().tolist() == [[6, 8]]
    assert input_region(region, (40, 60)) is region
