"""The classic clusterings inside the network: what the contract checks do not see."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pacavit.clustering import CLUSTERINGS
from pacavit.clustering.functional import agglomerative, gaussian_mixture, kmeans
from pacavit.clustering.functional._starts import initial_centers
from pacavit.clustering.kept import keep_largest
from pacavit.errors import RecipeError
from pacavit.types import Grid

CLASSIC = ("kmeans", "gmm", "hierarchical", "dbscan")


def build(name: str, dim: int, clusters: int, **options: Any) -> Any:
    return CLUSTERINGS.create(name, dim, clusters, options=options)


def partition(name: str, x: Tensor, clusters: int = 4, **options: Any) -> Tensor:
    """The cluster (B, N) of every patch."""
    module = build(name, x.shape[2], clusters, **options)
    weights, log_mass, _ = module(x, Grid(1, x.shape[1]))
    return (weights.log() + log_mass[..., None]).argmax(1)


def quarters(images: int = 2) -> Tensor:
    """Four groups of nine patches that lie apart, (B, 36, 12), patches of a group together."""
    centers = torch.eye(12)[:4] * 8
    return centers.repeat_interleave(9, 0) + 0.5 * torch.randn(images, 36, 12)


@pytest.mark.parametrize("name", CLASSIC)
def test_groups_that_lie_apart_are_clusters(name: str) -> None:
    options: dict[str, Any] = {"quantile": 0.9} if name == "dbscan" else {}
    for image in partition(name, quarters(), **options).view(2, 4, 9):
        assert (image == image[:, :1]).all()
        assert len(set(image[:, 0].tolist())) == 4


def test_partitions_are_those_of_the_functions() -> None:
    x, grid = torch.randn(3, 36, 12, dtype=torch.float64), Grid(6, 6)
    hard = build("kmeans", 12, 5, n_iter=4, init="farthest", hard=True)
    expected = kmeans(x, 5, init="farthest", max_iter=4, tol=None)
    assert torch.equal(hard.labels(x, grid), expected.labels)
    tree = build("hierarchical", 12, 5, linkage="average")
    assert torch.equal(tree.labels(x, grid), agglomerative(x, 5, linkage="average").labels)


def test_with_a_temperature_of_one_the_mixture_is_the_function_s() -> None:
    x = torch.randn(2, 36, 12, dtype=torch.float64)
    module = build("gmm", 12, 3, init="farthest", temperature=1 / 12, reg_covar=1e-3, n_iter=4)
    centered = x - x.mean(1, keepdim=True)
    start = initial_centers(centered, 3, "farthest", torch.ones(2, 36, dtype=torch.bool), 0)
    variances = centered.square().mean(1) + 1e-3
    expected = gaussian_mixture(
        centered,
        3,
        weights_init=torch.full((2, 3), 1 / 3, dtype=torch.float64),
        means_init=start,
        precisions_init=(1 / variances)[:, None].expand(-1, 3, -1),
        max_iter=4,
        tol=None,
        reg_covar=1e-3,
    )
    responsibilities = module.scores(x, Grid(6, 6)).exp().transpose(1, 2)
    torch.testing.assert_close(responsibilities, expected.responsibilities)


@pytest.mark.parametrize("name", ["kmeans", "gmm"])
def test_a_low_temperature_is_nearly_hard_and_a_high_one_nearly_flat(name: str) -> None:
    x, grid = torch.randn(2, 36, 12), Grid(6, 6)
    for temperature, low, high in ((1e-4, 0.99, 1.0), (1e4, 0.0, 0.3)):
        module = build(name, 12, 4, temperature=temperature)
        share = module.scores(x, grid).exp().amax(1).mean()
        assert low <= share <= high


@pytest.mark.parametrize("name", ["kmeans", "gmm"])
def test_hard_clusters_are_means_of_their_members(name: str) -> None:
    module = build(name, 12, 4, hard=True)
    weights, _, valid = module(torch.randn(2, 36, 12), Grid(6, 6))
    assert valid is not None
    members = weights > 0
    torch.testing.assert_close(weights, members / members.sum(2, keepdim=True).clamp(min=1).float())
    assert not module.differentiable


def test_dbscan_finds_its_radius_whatever_the_scale() -> None:
    x = quarters()
    expected = partition("dbscan", x)
    for scale in (1e-3, 1e3):
        assert torch.equal(partition("dbscan", scale * x), expected)


def test_a_threshold_gives_each_image_its_own_number_of_clusters() -> None:
    x = torch.cat([quarters(1), 0.1 * torch.randn(1, 36, 12)])
    labels = partition("hierarchical", x, clusters=8, distance_threshold=3.0)
    assert [len(set(image.tolist())) for image in labels] == [4, 1]


@pytest.mark.parametrize(
    ("labels", "clusters", "outliers", "expected"),
    [
        ([0, 1, 1, 2, 2, 2], 3, "cluster", [2, 1, 1, 0, 0, 0]),
        ([0, 1, 1, 2, 2, 2], 2, "cluster", [1, 1, 1, 0, 0, 0]),
        ([0, 1, 1, 2, 2, 2], 2, "nearest", [1, 1, 1, 0, 0, 0]),
        ([-1, 1, 1, 0, 0, 0], 3, "cluster", [2, 1, 1, 0, 0, 0]),
        ([-1, 1, 1, 0, 0, 0], 2, "cluster", [1, 1, 1, 0, 0, 0]),
        ([-1, 1, 1, 0, 0, 0], 2, "nearest", [1, 1, 1, 0, 0, 0]),
        ([-1, 0, 0, 0, 0, -1], 5, "nearest", [0, 0, 0, 0, 0, 0]),
        ([-1] * 6, 3, "cluster", [0] * 6),
        ([-1] * 6, 3, "nearest", [0] * 6),
        ([0, 1, 1, 2, 2, 2], 1, "cluster", [0] * 6),
    ],
)
def test_outliers_are_assigned(
    labels: list[int], clusters: int, outliers: str, expected: list[int]
) -> None:
    x = torch.arange(6.0).view(1, 6, 1)
    mask = torch.ones(1, 6, dtype=torch.bool)
    kept = keep_largest(torch.tensor([labels]), clusters, x, mask, outliers)
    assert kept[0].tolist() == expected


@pytest.mark.parametrize("name", CLASSIC)
def test_padding_changes_nothing_for_the_other_patches(name: str) -> None:
    module = build(name, 12, 4).double()
    if name in ("kmeans", "gmm"):  # whose grid of starting cells would be another
        module.init = "farthest"
    x = torch.randn(1, 36, 12, dtype=torch.float64)
    mask = torch.ones(1, 6, 6, dtype=torch.bool)
    mask[:, :, 4:] = False
    padded = module(x, Grid(6, 6), mask.flatten(1)).weights[..., mask.flatten()]
    alone = module(x[:, mask.flatten()], Grid(6, 4)).weights
    torch.testing.assert_close(padded, alone)


@pytest.mark.parametrize("name", ["hierarchical", "dbscan"])
def test_half_precision_is_pooled_in_full(name: str) -> None:
    x = (3 * torch.randn(2, 1024, 12)).bfloat16()
    module = build(name, 12, 4)
    assert torch.equal(
        module(x, Grid(32, 32)).weights, module(x.float(), Grid(32, 32)).weights.to(torch.float32)
    )


def test_tokens_that_are_no_numbers_end_in_some_partition() -> None:
    """The engine tells of them; a clustering must not run for ever before it can."""
    x = torch.full((1, 36, 12), torch.nan)
    for name in ("kmeans", "hierarchical", "dbscan"):
        build(name, 12, 4)(x, Grid(6, 6))


@pytest.mark.parametrize("name", CLASSIC)
def test_autocast_changes_no_partition(name: str) -> None:
    x = torch.randn(2, 36, 12)
    expected = partition(name, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(partition(name, x), expected)


@pytest.mark.parametrize("name", ["kmeans", "hierarchical"])
def test_with_positions_what_looks_alike_far_apart_is_two_clusters(name: str) -> None:
    """Two dark corners on bright ground: one cluster by channels, two with their positions."""
    grid = Grid(8, 8)
    bright = torch.ones(1, 8, 8, 6)
    bright[:, :2, :2] = bright[:, 6:, 6:] = 0
    x = (bright + 0.01 * torch.randn(bright.shape)).flatten(1, 2)
    found = {}
    for weight in (0.0, 1.0):
        options = {"init": "farthest", "hard": True} if name == "kmeans" else {}
        module = build(name, 6, 4, position_weight=weight, **options)
        weights, log_mass, _ = module(x, grid)
        parts = (weights.log() + log_mass[..., None]).argmax(1).unflatten(1, grid)[0]
        found[weight] = (parts[:2, :2].unique().tolist(), parts[6:, 6:].unique().tolist())
    assert set(found[0.0][0]) & set(found[0.0][1])
    assert not set(found[1.0][0]) & set(found[1.0][1])


def test_positions_are_those_in_the_image_whatever_its_padding() -> None:
    module = build("hierarchical", 4, 5, position_weight=0.7)
    x = torch.randn(2, 6, 8, 4)
    alone, _, _ = module(x[:, :4, :5].flatten(1, 2), Grid(4, 5))
    mask = torch.zeros(2, 6, 8, dtype=torch.bool)
    mask[:, :4, :5] = True
    padded, _, _ = module(x.flatten(1, 2), Grid(6, 8), mask.flatten(1))
    assert torch.equal(padded.unflatten(2, (6, 8))[..., :4, :5].flatten(2), alone)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("kmeans", {"position_weight": -1}, "position_weight must be at least 0"),
        ("kmeans", {"n_iter": 0}, "n_iter must be a whole number from 1 to"),
        ("kmeans", {"n_iter": 10**20}, "n_iter must be a whole number from 1 to"),
        ("kmeans", {"seed": 10**20}, "seed must be a whole number from 0 to"),
        ("gmm", {"seed": -1}, "seed must be a whole number from 0 to"),
        ("random", {"seed": 10**20}, "seed must be a whole number from 0 to"),
        ("kmeans", {"init": "gird"}, "init must be one of"),
        ("kmeans", {"temperature": 0}, "temperature must be above 0"),
        ("gmm", {"covariance": "full"}, "covariance must be one of diag, spherical"),
        ("gmm", {"reg_covar": 0}, "reg_covar must be above 0"),
        ("gmm", {"n_iter": -1}, "n_iter"),
        ("gmm", {"temperature": float("nan")}, "temperature"),
        ("hierarchical", {"linkage": "single"}, "linkage must be one of"),
        ("hierarchical", {"distance_threshold": 0}, "distance_threshold must be above 0"),
        ("hierarchical", {"outliers": "noise"}, "outliers must be one of"),
        ("dbscan", {"eps": 0}, "eps must be above 0"),
        ("dbscan", {"quantile": 1.5}, "quantile must be"),
        ("dbscan", {"min_samples": 2.5}, "min_samples must be a whole number"),
        ("dbscan", {"outliers": "noise"}, "outliers must be one of"),
    ],
)
def test_options_out_of_range_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(name, 8, 4, **options)
