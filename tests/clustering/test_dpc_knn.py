"""Density peaks: against loops over patches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pacavit.clustering import CLUSTERINGS
from pacavit.errors import RecipeError
from pacavit.types import Grid


def build(clusters: int, **options: Any) -> Any:
    return CLUSTERINGS.create("dpc_knn", 6, clusters, options=options)


def reference(x: Tensor, clusters: int, k: int) -> list[int]:
    """Of one image (N, C), from the definition; of equal patches the first is denser."""
    number = len(x)
    d = (x[:, None] - x[None]).square().mean(2).sqrt()
    rho = [(-d[i].sort().values[:k].square().mean()).exp().item() for i in range(number)]
    score = []
    for i in range(number):
        denser = [j for j in range(number) if (rho[j], -j) > (rho[i], -i)]
        delta = min(d[i, j].item() for j in denser) if denser else d[i].max().item()
        score.append(rho[i] * delta)
    centers = sorted(range(number), key=lambda i: (-score[i], i))[:clusters]
    labels = []
    for i in range(number):
        nearest = min(range(len(centers)), key=lambda rank: d[i, centers[rank]].item())
        labels.append(centers.index(i) if i in centers else nearest)
    return labels


@pytest.mark.parametrize("clusters", [1, 4, 9])
@pytest.mark.parametrize("k", [1, 5, 100])
def test_labels_are_those_of_the_definition(clusters: int, k: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 20, 6).double()
    labels = build(clusters, k=k).labels(x, Grid(4, 5))
    assert labels.tolist() == [reference(image, clusters, k) for image in x]


def test_groups_that_lie_apart_are_clusters() -> None:
    centers = torch.eye(6)[:4] * 8
    x = centers.repeat_interleave(9, 0) + 0.3 * torch.randn(2, 36, 6)
    for image in build(4).labels(x, Grid(6, 6)).view(2, 4, 9):
        assert (image == image[:, :1]).all()
        assert sorted(image[:, 0].tolist()) == [0, 1, 2, 3]


def test_equal_patches_are_ordered_by_index() -> None:
    """Corners of a square, five patches each: everything is equal, so the first one leads."""
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    x = torch.cat([corners, torch.zeros(4, 4)], 1).repeat(5, 1)[None]
    labels = build(2).labels(x, Grid(4, 5))[0]
    # Corner 0 has the largest distance; the others the same distance to a denser one.
    assert labels[:4].tolist() == [0, 1, 0, 1]
    assert torch.equal(labels.view(5, 4), labels[:4].expand(5, -1))
    for _ in range(3):
        assert torch.equal(build(2).labels(x, Grid(4, 5))[0], labels)


def test_constant_images_have_one_cluster_with_patches_and_centers_of_their_own() -> None:
    x = torch.ones(2, 12, 6)
    labels = build(3).labels(x, Grid(3, 4))
    # Each center keeps its own patch; all others join the first.
    assert labels.tolist() == [[0, 1, 2] + [0] * 9] * 2


def test_an_image_does_not_depend_on_the_distances_of_others() -> None:
    x = torch.randn(1, 20, 6).double()
    alone = build(4).labels(x, Grid(4, 5))
    together = build(4).labels(torch.cat([x, 1000 * torch.randn_like(x)]), Grid(4, 5))
    assert torch.equal(alone[0], together[0])


def test_padding_is_no_center_and_no_neighbor() -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 24, 6).double()
    mask = torch.zeros(2, 4, 6, dtype=torch.bool)
    mask[:, :2, :2] = True
    labels = build(6).labels(x, Grid(4, 6), mask.flatten(1))
    assert labels[~mask.flatten(1)].eq(-1).all()
    alone = build(6).labels(x[mask.flatten(1)].view(2, 4, 6), Grid(2, 2))
    assert torch.equal(labels[mask.flatten(1)].view(2, 4), alone)
    assert sorted(alone[0].tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be a whole number"),
        ({"position_weight": -1}, "position_weight must be at least 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(4, **options)
