"""Resizing inside of a graph: to the last bit that of the preprocessing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

from pacavit.data import DataInfo, Sample, SampleRandom
from pacavit.data.formats.image import resize_image
from pacavit.errors import PacavitError
from pacavit.export.pixels import pixel_input
from pacavit.tasks.classification import ClassificationConfig, ClassificationPreprocess
from pacavit.tasks.graph import Graph
from pacavit.tasks.segmentation import SegmentationConfig, SegmentationPreprocess

RANDOM = SampleRandom(seed=0, epoch=0, indices=torch.zeros(1, dtype=torch.int64))
SIZES = ((32, 32), (427, 640), (301, 299), (17, 90), (24, 40))
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class Images(Graph):
    outputs = ("logits",)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (images,)


def info(*size: int) -> DataInfo:
    return DataInfo("photos", "made by hand", ("a", "b"), (size[0], size[1]), MEAN, STD)


@pytest.fixture(scope="module")
def photo() -> Tensor:
    return torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1).contiguous()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("stored", "config", "tolerance"),
    [
        ((32, 32), {}, 0),
        ((24, 40), {}, 0),
        ((40, 24), {}, 0),
        ((48, 48), {"image_size": 32}, 1e-5),
        ((32, 32), {"image_size": 112, "crop": {}}, 0),
        ((32, 32), {"image_size": 96, "crop": {"interpolation": "bilinear"}}, 0),
    ],
    ids=["square", "wide", "tall", "smaller", "bicubic", "bilinear"],
)
def test_a_classifier_gets_the_pixels_of_its_preprocessing(
    photo: Tensor,
    size: tuple[int, int],
    stored: tuple[int, int],
    config: dict[str, Any],
    tolerance: float,
) -> None:
    image, data = resize_image(photo, size), info(*stored)
    chosen = ClassificationConfig.model_validate({"name": "classification", **config})
    preprocess = ClassificationPreprocess(chosen, data, training=False)
    samples = [preprocess.sample(Sample(image, None, 0), RANDOM)]
    expected = preprocess.batch(preprocess.collate(samples), RANDOM).images
    (found,) = pixel_input(Images(), preprocess, data, None)(image.permute(1, 2, 0)[None])
    assert (found - expected).abs().max() <= tolerance


@pytest.mark.parametrize(("size", "shorter"), [((427, 640), 300), ((50, 41), 41), ((60, 80), 97)])
def test_a_segmentation_gets_the_pixels_of_its_preprocessing(
    photo: Tensor, size: tuple[int, int], shorter: int
) -> None:
    image, data = resize_image(photo, size), info(64, 64)
    config = SegmentationConfig.model_validate({"name": "segmentation", "image_size": shorter})
    preprocess = SegmentationPreprocess(config, data, training=False)
    samples = [preprocess.sample(Sample(image, None, 0), RANDOM)]
    expected = preprocess.batch(preprocess.collate(samples), RANDOM).images
    (found,) = pixel_input(Images(), preprocess, data, size)(image.permute(1, 2, 0)[None])
    assert torch.equal(found, expected)


def test_a_segmentation_that_resizes_needs_the_size_of_the_images() -> None:
    config = SegmentationConfig.model_validate({"name": "segmentation", "image_size": 32})
    preprocess = SegmentationPreprocess(config, info(64, 64), training=False)
    with pytest.raises(PacavitError, match="needs --size HEIGHT WIDTH"):
        pixel_input(Images(), preprocess, info(64, 64), None)


def test_windows_that_slide_are_no_part_of_a_graph() -> None:
    config = SegmentationConfig.model_validate(
        {"name": "segmentation", "slide": {"window": (32, 32), "stride": (16, 16)}}
    )
    preprocess = SegmentationPreprocess(config, info(64, 64), training=False)
    with pytest.raises(PacavitError, match="cannot slide windows"):
        pixel_input(Images(), preprocess, info(64, 64), None)
