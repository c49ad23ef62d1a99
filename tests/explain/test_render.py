"""Pictures of clusters lie over the pixels that the clusters are about."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from pacavit.engine.weights.load import LoadedModel
from pacavit.explain import ImageExplanation, StageClusters, explain_images, render

MakeModel = Callable[..., LoadedModel]
DrawSquare = Callable[[tuple[int, int], tuple[int, int, int, int]], Path]

SIDE = 16  # of the bright square, in pixels of the network's input of 32 x 32
SHIFTS = range(4)  # all places of a square relative to a patch of the paper's stem
BRIGHT = 0  # the cluster of the square
TOLERANCE = 0.3  # pixels of the input; where patches end does not matter on the average


class Square(NamedTuple):
    """An explained image with a square, and where its middle is, in pixels of the image."""

    explanation: ImageExplanation
    clusters: StageClusters
    middle: Tensor


@pytest.fixture(params=["nano stem", "paper's stem"])
def model(request: pytest.FixtureRequest, bright_model: MakeModel) -> LoadedModel:
    return bright_model(paper_stem=request.param == "paper's stem", crop=False)


@pytest.fixture(params=[(32, 32), (64, 96), (120, 64)], ids=str)
def squares(
    request: pytest.FixtureRequest, model: LoadedModel, draw_square: DrawSquare
) -> list[Square]:
    """Images of the same size, the square a pixel of the input further in each."""
    size: tuple[int, int] = request.param
    pixel = min(size) // 32
    found = []
    for shift in SHIFTS:
        # Off the middle, so that no picture upside down or of the other side has it there.
        top = (size[0] - min(size)) // 2 + (3 + shift) * pixel
        left = (size[1] - min(size)) // 2 + (9 + shift) * pixel
        path = draw_square(size, (top, left, top + SIDE * pixel, left + SIDE * pixel))
        (explanation,) = explain_images(model, [path], device=torch.device("cpu"), label=1)
        assert isinstance(explanation, ImageExplanation)
        (clusters,) = explanation.stages
        middle = torch.tensor([top, left]) + SIDE * pixel / 2
        found.append(Square(explanation, clusters, middle))
    return found


def middle_of(mask: Tensor) -> Tensor:
    """Row and column of the middle of what is set; a pixel's own middle is at its half."""
    return mask.nonzero().double().mean(0) + 0.5


def assert_aligned(squares: list[Square], middles: list[Tensor]) -> None:
    """Middles found, in pixels of the image, against those of the squares, on the average."""
    off = torch.stack(
        [found - square.middle for found, square in zip(middles, squares, strict=True)]
    ).mean(0)
    pixel = min(squares[0].explanation.placement.image_size) / 32
    assert off.abs().max() < TOLERANCE * pixel, f"{(off / pixel).tolist()} pixels of the input off"


def test_the_partition_has_the_square_where_it_is(squares: list[Square]) -> None:
    middles = []
    for explanation, clusters, middle in squares:
        size = render.display_size(explanation.placement.image_size)
        scale = size[0] / explanation.placement.image_size[0]
        placement = explanation.placement.resized(size)
        black = torch.zeros(3, *size, dtype=torch.uint8)
        picture = render.partition_picture(black, clusters, placement)
        row, column = (middle * scale).long().tolist()
        middles.append(middle_of((picture == picture[:, row, column, None, None]).all(0)) / scale)
        seen = picture.any(0)
        region = placement.region
        assert seen.any(1).sum() == pytest.approx(region.height, abs=1)
        assert seen.any(0).sum() == pytest.approx(region.width, abs=1)
    assert_aligned(squares, middles)


def test_the_gallery_has_the_square_where_it_is(squares: list[Square]) -> None:
    partitions, heatmaps = [], []
    for explanation, clusters, _ in squares:
        figure = render.cluster_gallery(explanation, clusters)
        shown = {axes.get_title().partition(":")[0]: axes.images for axes in figure.axes}
        drawn, heatmap = (
            torch.from_numpy(np.asarray(shown[title][1].get_array()))
            for title in ("partition", f"cluster {BRIGHT}")
        )
        scale = drawn.shape[0] / explanation.placement.image_size[0]
        color = torch.tensor([*render.cluster_colors(clusters)[BRIGHT], 1.0])
        partitions.append(middle_of((drawn - color).abs().amax(2) < 1e-3) / scale)
        heatmaps.append(middle_of(heatmap > 0.5) / scale)
    assert_aligned(squares, partitions)
    assert_aligned(squares, heatmaps)


def test_the_grid_lies_over_the_image(squares: list[Square]) -> None:
    """Cells of equal size in its region are the patches, as pages and the demo draw them."""
    middles = []
    for explanation, clusters, _ in squares:
        region = explanation.placement.grid_region(clusters.grid, *clusters.sampling)
        corner = torch.tensor([region.top, region.left])
        cell = torch.tensor([region.height, region.width]) / torch.tensor(clusters.grid)
        bright = clusters.partition.unflatten(0, clusters.grid) == BRIGHT
        middles.append(corner + middle_of(bright) * cell)
    assert_aligned(squares, middles)
