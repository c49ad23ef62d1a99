"""Padding, precision, and what is refused, the same for every function."""

from __future__ import annotations

import doctest
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pacavit.clustering.functional import (
    _agglomerative,
    agglomerative,
    dbscan,
    gaussian_mixture,
    kmeans,
)
from pacavit.clustering.functional._starts import initial_centers
from pacavit.errors import RecipeError

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "kmeans": lambda x, **more: kmeans(x, 4, init="farthest", **more),
    "gaussian_mixture": lambda x, **more: gaussian_mixture(x, 4, init="farthest", **more),
    "agglomerative": lambda x, **more: agglomerative(x, 4, **more),
    "dbscan": lambda x, **more: dbscan(x, 1.0, min_samples=3, **more),
}
every_function = pytest.mark.parametrize("cluster", FUNCTIONS.values(), ids=FUNCTIONS.keys())


def spots(images: int = 3) -> Tensor:
    """Four well separated groups of ten points each."""
    centers = 9 * torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    return centers.repeat_interleave(10, 0) + 0.3 * torch.randn(images, 40, 3)


@every_function
def test_groups_that_lie_apart_are_found(cluster: Callable[..., Any]) -> None:
    labels = cluster(spots()).labels
    assert labels.dtype == torch.int64
    for image in labels.view(3, 4, 10):
        assert (image == image[:, :1]).all()
        assert len(set(image[:, 0].tolist())) == 4


@every_function
def test_padding_is_as_if_it_were_not_there(cluster: Callable[..., Any]) -> None:
    x = spots().double()
    mask = torch.ones(3, 40, dtype=torch.bool)
    mask[1, 5:25], mask[2, ::3] = False, False
    together = cluster(torch.where(mask[..., None], x, torch.nan), mask=mask)
    assert (together.labels[~mask] == -1).all()
    for image in range(3):
        alone = cluster(x[image : image + 1, mask[image]])
        assert torch.equal(together.labels[image, mask[image]], alone.labels[0])


@every_function
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_change_no_partition(
    cluster: Callable[..., Any], dtype: torch.dtype
) -> None:
    x = (5 * torch.randn(3, 60, 8)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        labels = cluster(x).labels
    assert torch.equal(labels, cluster(x.float()).labels)


def test_autocast_is_seen_where_points_are_given_by_name() -> None:
    x = 5 * torch.randn(2, 60, 8)
    expected = kmeans(x, 4).labels
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(kmeans(x=x, n_clusters=4).labels, expected)


def test_far_apart_and_narrow_groups_have_positive_variances() -> None:
    """The mean square less the square of the mean would be below 0 in single precision."""
    x = torch.cat([torch.full((1, 20, 3), -1000.0), torch.full((1, 20, 3), 1000.0)], 1)
    x = x + 1e-3 * torch.randn(1, 40, 3)
    found = gaussian_mixture(x, 2, init="farthest")
    assert (found.covariances > 0).all()
    assert found.responsibilities.isfinite().all()


def test_k_means_plus_plus_repeats_points_where_all_are_chosen() -> None:
    x = torch.tensor([[[9.0], [1.0], [1.0], [3.0]]])
    mask = torch.tensor([[False, True, True, True]])
    centers = initial_centers(x, 4, "k-means++", mask, 0)
    assert set(centers.flatten().tolist()) == {1.0, 3.0}


@every_function
def test_one_point_is_one_cluster_or_noise(cluster: Callable[..., Any]) -> None:
    expected = -1 if cluster is FUNCTIONS["dbscan"] else 0
    assert cluster(torch.randn(2, 1, 3)).labels.tolist() == [[expected]] * 2


@every_function
def test_inputs_are_not_changed_and_carry_no_gradient(cluster: Callable[..., Any]) -> None:
    x = spots().requires_grad_()
    before = x.detach().clone()
    result = cluster(x)
    assert torch.equal(x, before)
    assert not any(part.requires_grad for part in result)


@every_function
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_none_are_refused(cluster: Callable[..., Any], value: float) -> None:
    x = spots()
    x[1, 3, 0] = value
    with pytest.raises(RecipeError, match="NaN or infinite"):
        cluster(x)


@every_function
@pytest.mark.parametrize(
    ("x", "mask"),
    [
        (torch.randn(4, 3), None),
        (torch.randn(2, 0, 3), None),
        (torch.ones(2, 4, 3, dtype=torch.int64), None),
        (torch.randn(2, 4, 3), torch.ones(2, 5, dtype=torch.bool)),
        (torch.randn(2, 4, 3), torch.ones(2, 4)),
        (torch.randn(2, 4, 3), torch.zeros(2, 4, dtype=torch.bool)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    cluster: Callable[..., Any], x: Tensor, mask: Tensor | None
) -> None:
    with pytest.raises(ValueError, match=r"points|mask"):
        cluster(x, mask=mask)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: kmeans(x, 0), "n_clusters must be a whole number from 1 to"),
        (lambda x: kmeans(x, 2, max_iter=0), "max_iter"),
        (lambda x: kmeans(x, 2, tol=-1), "tol"),
        (lambda x: kmeans(x, 2, init="kmeans++"), "init must be a tensor or one of"),
        (lambda x: kmeans(x, 2, init=torch.zeros(3, 2, 9)), r"init must be \(3, 2, 3\)"),
        (lambda x: kmeans(x, 2, init=torch.full((3, 2, 3), math.nan)), "init holds NaN"),
        (lambda x: kmeans(x, 2, random_state=-1), "random_state must be a whole number from 0 to"),
        (lambda x: gaussian_mixture(x, 2, random_state=2**32), "random_state must be a whole"),
        (lambda x: gaussian_mixture(x, 0), "n_components"),
        (lambda x: gaussian_mixture(x, 2, covariance_type="tied"), "covariance_type"),
        (lambda x: gaussian_mixture(x, 2, reg_covar=math.nan), "reg_covar"),
        (lambda x: gaussian_mixture(x, 2, means_init=torch.zeros(1)), "means_init"),
        (
            lambda x: gaussian_mixture(x, 2, precisions_init=-torch.ones(3, 2, 3)),
            "precisions_init is not symmetric and positive",
        ),
        (
            lambda x: gaussian_mixture(x, 2, weights_init=torch.tensor([[-1.0, 2]] * 3)),
            "weights_init must be 0 or more, with the sum 1",
        ),
        (
            lambda x: gaussian_mixture(
                x,
                2,
                covariance_type="full",
                precisions_init=torch.eye(3).add(0.1).triu().expand(3, 2, 3, 3),
            ),
            "precisions_init is not symmetric",
        ),
        (
            lambda x: gaussian_mixture(torch.zeros_like(x), 2, reg_covar=0),
            "a variance is not positive; increase reg_covar",
        ),
        (lambda x: agglomerative(x, 0), "n_clusters"),
        (lambda x: agglomerative(x, 2, linkage="single"), "linkage must be one of"),
        (lambda x: agglomerative(x, 2, distance_threshold=1.0), "give one of"),
        (lambda x: agglomerative(x, None, distance_threshold=-1.0), "distance_threshold"),
        (lambda x: dbscan(x, 0.0), "eps must be above 0, not 0"),
        (lambda x: dbscan(x, math.nan), "eps must be above 0, not nan"),
        (lambda x: dbscan(x, torch.tensor([1.0, -1, 1])), "eps must be above 0, not -1"),
        (lambda x: dbscan(x, torch.ones(2)), "eps must be one number or 3"),
        (lambda x: dbscan(x, min_samples=0), "min_samples"),
    ],
)
def test_options_out_of_range_are_named(call: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        call(spots())


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (kmeans, {"n_clusters": 2.5}, "n_clusters must be a whole number"),
        (kmeans, {"n_clusters": 2, "init": np.zeros((3, 2, 3))}, "init must be a tensor"),
        (kmeans, {"n_clusters": 2, "random_state": "0"}, "random_state must be a whole number"),
        (kmeans, {"n_clusters": 2, "random_state": None}, "random_state must be a whole number"),
        (dbscan, {"eps": "1"}, "eps must be above 0, not '1'"),
        (dbscan, {"eps": None}, "eps must be above 0, not None"),
        (dbscan, {"min_samples": "3"}, "min_samples must be a whole number"),
        (agglomerative, {"n_clusters": None, "distance_threshold": "1"}, "distance_threshold"),
    ],
)
def test_options_of_wrong_types_are_named(
    function: Callable[..., Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        function(spots(), **options)


@pytest.mark.parametrize("init", ["k-means++", "random", "farthest"])
def test_starts_are_repeatable_and_those_of_the_image_alone(init: str) -> None:
    x = torch.randn(4, 50, 6, dtype=torch.float64)
    found = kmeans(x, 7, init=init, random_state=3)
    assert torch.equal(kmeans(x, 7, init=init, random_state=3).labels, found.labels)
    assert torch.equal(kmeans(x[2:3], 7, init=init, random_state=3).labels, found.labels[2:3])
    if init != "farthest":
        assert not torch.equal(kmeans(x, 7, init=init, random_state=4).labels, found.labels)


def test_all_starts_work_with_fewer_points_than_clusters() -> None:
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    for init in ("k-means++", "random", "farthest"):
        found = kmeans(x, 5, init=init)
        assert found.inertia.max() < 1e-20
        assert [len(set(labels.tolist())) for labels in found.labels] == [3, 3]


@pytest.mark.parametrize("linkage", ["ward", "average", "complete"])
@pytest.mark.parametrize(
    ("merge", "seeds"),
    [(_agglomerative.merge_compiled, range(9)), (_agglomerative.merge_tensors, (4, 6))],
)
def test_trees_of_points_that_differ_by_rounding_alone_are_whole(
    merge: Callable[[Tensor, Tensor, str], tuple[Tensor, Tensor]],
    seeds: Sequence[int],
    linkage: str,
) -> None:
    mask = torch.ones(16, 256, dtype=torch.bool)
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        x = 10 * torch.randn(1, 1, 64, generator=generator)
        x = x + torch.randn(16, 256, 64, generator=generator) * 10.0**-seed
        x[::2] = x[::2, torch.randint(0, 40, (256,), generator=generator)]
        x[:4] = x[:4].round(decimals=3)
        target, height = merge(x, mask, linkage)
        assert height.isfinite().sum(1).tolist() == [255] * 16
        assert (height >= 0).all()
        assert (target <= torch.arange(256)).all()


@pytest.mark.parametrize("function", [agglomerative, dbscan, gaussian_mixture, kmeans])
def test_examples_in_docstrings_are_true(function: Callable[..., Any]) -> None:
    tests = doctest.DocTestFinder(recurse=False).find(function, globs={function.__name__: function})
    assert [len(test.examples) for test in tests] == [3]
    assert doctest.DocTestRunner().run(tests[0]).failed == 0
