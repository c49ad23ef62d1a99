"""Every function finds for every image what scikit-learn finds for it, in any order of points."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN, AgglomerativeClustering, KMeans
from sklearn.mixture import GaussianMixture
from torch import Tensor

from pacavit.clustering.functional import (
    _agglomerative,
    _dbscan,
    _kmeans,
    _mixture,
    agglomerative,
    dbscan,
    gaussian_mixture,
    kmeans,
)

IMAGES = 3
KINDS = ("random", "blobs", "duplicated", "collinear", "constant")

quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
sizes = st.one_of(st.integers(1, 12), st.integers(13, 400))


@pytest.fixture(autouse=True)
def calm_scikit_learn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def points(kind: str, number: int, width: int, seed: int) -> Tensor:
    """(IMAGES, N, C) in float64; distances of "random" and "blobs" have no ties."""
    draws = np.random.default_rng(seed)
    x = draws.normal(size=(IMAGES, number, width))
    if kind == "blobs":
        x = 0.3 * x + 4 * draws.integers(-1, 2, size=(IMAGES, number, 1))
    elif kind == "duplicated":
        x = x[:, draws.integers(0, max(1, number // 3), size=number)]
    elif kind == "collinear":
        x = np.arange(number)[None, :, None] * np.ones((IMAGES, 1, width))
    elif kind == "constant":
        x = np.full((IMAGES, number, width), 3.5)
    return torch.from_numpy(np.ascontiguousarray(x))


def same_partition(one: Any, other: Any) -> bool:
    """Whether two labellings differ in names only."""
    pairs = set(zip(np.asarray(one).tolist(), np.asarray(other).tolist(), strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def cluster_distances(x: Tensor, labels: Tensor, linkage: str) -> Tensor:
    """Of every pair of an image's clusters: points (N, C), labels (N,) -> (pairs,)."""
    number = int(labels.max()) + 1
    above = torch.triu_indices(number, number, 1)
    if linkage == "ward":
        members = torch.nn.functional.one_hot(labels).to(x)
        size = members.sum(0)
        means = members.T @ x / size[:, None]
        scale = (2 * size[:, None] * size / (size[:, None] + size)).sqrt()
        return (scale * torch.cdist(means, means))[above[0], above[1]]
    apart = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    pair = (labels[:, None] * number + labels).flatten()
    how = {"average": "mean", "complete": "amax"}[linkage]
    between = x.new_zeros(number**2)
    between.scatter_reduce_(0, pair, apart.flatten(), how, include_self=False)
    return between.view(number, number)[above[0], above[1]]


@quick
@given(st.sampled_from(KINDS), sizes, st.integers(1, 8), st.integers(1, 24), st.integers(0, 999))
def test_kmeans(kind: str, number: int, width: int, clusters: int, seed: int) -> None:
    x = points(kind, number, width, seed)
    draws = np.random.default_rng(seed + 1)
    chosen = draws.integers(0, number, size=clusters)
    init = x[:, chosen] + 0.1 * torch.from_numpy(draws.normal(size=(IMAGES, clusters, width)))
    init[0, 0] += 50  # an empty cluster to begin with
    found = kmeans(x, clusters, init=init)
    with patch.object(_kmeans, "lloyd_compiled", _kmeans.lloyd_tensors):
        by_tensors = kmeans(x, clusters, init=init)
    nearest = torch.cdist(x, found.centers).square()
    own = nearest.gather(2, found.labels[..., None])[..., 0]
    torch.testing.assert_close(own.sum(1), found.inertia, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(own, nearest.amin(2), atol=1e-8, rtol=1e-8)
    if kind == "constant":
        assert found.inertia.max() < 1e-20
        assert by_tensors.inertia.max() < 1e-20
    if kind not in ("random", "blobs") or number < clusters:
        return
    torch.testing.assert_close(by_tensors.inertia, found.inertia)
    for image in range(IMAGES):
        # Two empty clusters may take the two points of a pair in either order.
        assert same_partition(by_tensors.labels[image], found.labels[image])
        oracle = KMeans(clusters, init=init[image].numpy(), n_init=1, algorithm="lloyd")
        oracle.fit(x[image].numpy())
        assert found.inertia[image].item() == pytest.approx(oracle.inertia_, rel=1e-9)
        assert same_partition(found.labels[image], oracle.labels_)


def test_kmeans_needs_as_many_rounds_as_scikit_learn() -> None:
    x = points("random", 150, 4, 0)
    init = x[:, :9].clone()
    found = kmeans(x, 9, init=init)
    assert len(set(found.n_iter.tolist())) > 1
    for image in range(IMAGES):
        oracle = KMeans(9, init=init[image].numpy(), n_init=1).fit(x[image].numpy())
        assert found.n_iter[image] == oracle.n_iter_
        assert found.labels[image].tolist() == oracle.labels_.tolist()
        np.testing.assert_allclose(found.centers[image], oracle.cluster_centers_, atol=1e-12)


@quick
@given(
    st.sampled_from(("diag", "spherical", "full")),
    st.sampled_from(KINDS),
    sizes,
    st.integers(1, 5),
    st.integers(1, 24),
    st.integers(0, 999),
)
def test_gaussian_mixture(
    covariance: str, kind: str, number: int, width: int, components: int, seed: int
) -> None:
    x = points(kind, number, width, seed)
    components = min(components, 6) if covariance == "full" else components
    draws = np.random.default_rng(seed + 1)
    weights = draws.dirichlet(np.ones(components), size=IMAGES)
    means = x[:, np.arange(components) % number].numpy()
    means = means + draws.normal(size=means.shape)
    shape = {"spherical": (), "diag": (width,), "full": (width, width)}[covariance]
    precisions = draws.uniform(0.5, 2, size=(IMAGES, components, *shape))
    if covariance == "full":
        precisions = 0.1 * precisions @ precisions.swapaxes(2, 3) + np.eye(width)
    options = {"covariance_type": covariance, "reg_covar": 1e-2, "max_iter": 30}
    starts = {"weights_init": weights, "means_init": means, "precisions_init": precisions}
    tensors = {name: torch.from_numpy(value) for name, value in starts.items()}
    found = gaussian_mixture(x, components, **options, **tensors)  # type: ignore[arg-type]
    with patch.object(_mixture, "fit_compiled", _mixture.fit_tensors):
        by_tensors = gaussian_mixture(x, components, **options, **tensors)  # type: ignore[arg-type]
    torch.testing.assert_close(
        by_tensors.responsibilities, found.responsibilities, atol=1e-6, rtol=0
    )
    if number < max(2, components):  # scikit-learn refuses those
        assert (found.responsibilities >= 0).all()
        torch.testing.assert_close(
            found.responsibilities.sum(2), torch.ones(IMAGES, number, dtype=torch.float64)
        )
        return
    for image in range(IMAGES):
        own = {name: value[image] for name, value in starts.items()}
        oracle = GaussianMixture(components, **options, **own).fit(x[image].numpy())
        expected = oracle.predict_proba(x[image].numpy())
        np.testing.assert_allclose(found.responsibilities[image], expected, atol=1e-6)
        assert found.lower_bound[image].item() == pytest.approx(oracle.lower_bound_, abs=1e-6)
        assert found.n_iter[image] == oracle.n_iter_


@quick
@given(
    st.sampled_from(("ward", "average", "complete")),
    st.sampled_from(KINDS),
    sizes,
    st.integers(1, 6),
    st.one_of(st.integers(1, 30), st.floats(0.05, 6)),
    st.integers(0, 999),
)
def test_agglomerative(
    linkage: str, kind: str, number: int, width: int, cut: float, seed: int
) -> None:
    x = points(kind, number, width, seed)
    options: dict[str, Any] = {"n_clusters": cut}
    if isinstance(cut, float):
        options = {"n_clusters": None, "distance_threshold": cut}
    found = agglomerative(x, linkage=linkage, **options)
    with patch.object(_agglomerative, "merge_compiled", _agglomerative.merge_tensors):
        by_tensors = agglomerative(x, linkage=linkage, **options)
    used = [len(set(labels.tolist())) for labels in found.labels]
    assert used == found.n_clusters.tolist()
    if isinstance(cut, int):
        assert used == [min(cut, number)] * IMAGES
    if kind not in ("random", "blobs"):
        if isinstance(cut, float):
            for image, labels in zip((*x, *x), (*found.labels, *by_tensors.labels), strict=True):
                left = cluster_distances(image, labels, linkage)
                assert (left > cut - 1e-5).all()
                assert kind != "constant" or not len(left)
        return
    assert torch.equal(by_tensors.labels, found.labels)
    if number == 1 or (isinstance(cut, int) and cut > number):
        return
    for image in range(IMAGES):
        oracle = AgglomerativeClustering(linkage=linkage, **options).fit(x[image].numpy())
        assert same_partition(found.labels[image], oracle.labels_)


@quick
@given(
    st.sampled_from(KINDS),
    sizes,
    st.integers(1, 6),
    st.floats(0.05, 4),
    st.integers(1, 8),
    st.integers(0, 999),
)
def test_dbscan(
    kind: str, number: int, width: int, eps: float, min_samples: int, seed: int
) -> None:
    x = points(kind, number, width, seed)
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    if ((distances - eps).abs() < 1e-6).any():
        eps += 2.3e-6
    found = dbscan(x, eps, min_samples=min_samples)
    with patch.object(_dbscan, "connect_compiled", _dbscan.connect_tensors):
        by_tensors = dbscan(x, eps, min_samples=min_samples)
    assert torch.equal(found.labels, by_tensors.labels)
    for image in range(IMAGES):
        oracle = DBSCAN(eps=eps, min_samples=min_samples).fit(x[image].numpy())
        assert found.labels[image].tolist() == oracle.labels_.tolist()
        assert found.n_clusters[image] == oracle.labels_.max() + 1


@pytest.mark.parametrize("tol", [None, 1e-4])
def test_both_forms_agree_on_padded_images_and_fixed_rounds(tol: float | None) -> None:
    x = points("random", 60, 5, 3)
    mask = torch.ones(IMAGES, 60, dtype=torch.bool)
    mask[0, 40:], mask[1, ::4] = False, False
    options: dict[str, Any] = {"init": "farthest", "max_iter": 6, "tol": tol, "mask": mask}
    found, mixed = kmeans(x, 9, **options), gaussian_mixture(x, 4, **options)
    with (
        patch.object(_kmeans, "lloyd_compiled", _kmeans.lloyd_tensors),
        patch.object(_mixture, "fit_compiled", _mixture.fit_tensors),
    ):
        other, other_mixed = kmeans(x, 9, **options), gaussian_mixture(x, 4, **options)
    for one, two in zip((*found, *mixed), (*other, *other_mixed), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_points_changes_no_partition(seed: int) -> None:
    x = points("random", 120, 3, seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(120))
    moved = x[:, order]
    found = kmeans(x, 8, init=x[:, :8]), kmeans(moved, 8, init=x[:, :8])
    assert torch.equal(found[1].labels, found[0].labels[:, order])
    for covariance, shape in (("diag", (3,)), ("spherical", ()), ("full", (3, 3))):
        ones = torch.ones(IMAGES, 4, *shape, dtype=torch.float64)
        mixed = [
            gaussian_mixture(
                each,
                4,
                covariance_type=covariance,
                weights_init=torch.full((IMAGES, 4), 0.25, dtype=torch.float64),
                means_init=x[:, :4],
                precisions_init=torch.eye(3).expand_as(ones) if covariance == "full" else ones,
                max_iter=10,
                tol=None,
            ).responsibilities
            for each in (x, moved)
        ]
        torch.testing.assert_close(mixed[1], mixed[0][:, order], atol=1e-8, rtol=0)
    for linkage in ("ward", "average", "complete"):
        for cut in ({"n_clusters": 7}, {"n_clusters": None, "distance_threshold": 1.5}):
            options: dict[str, Any] = {"linkage": linkage, **cut}
            trees = [agglomerative(each, **options).labels for each in (x, moved)]
            for one, other in zip(trees[0][:, order], trees[1], strict=True):
                assert same_partition(one, other)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_points_changes_no_core_and_no_noise(seed: int) -> None:
    """A border point between two clusters goes to the one whose first core comes first."""
    x = points("random", 120, 2, seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(120))
    core = (torch.cdist(x, x) <= 0.3).sum(2)[:, order] >= 4
    one = dbscan(x, 0.3, min_samples=4).labels[:, order]
    other = dbscan(x[:, order], 0.3, min_samples=4).labels
    assert torch.equal(one < 0, other < 0)
    for image in range(IMAGES):
        assert len(set(one[image, core[image]].tolist())) > 1
        assert same_partition(one[image, core[image]], other[image, core[image]])
