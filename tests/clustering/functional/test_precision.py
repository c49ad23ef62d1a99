"""float32 points have scikit-learn's partitions also where groups or outliers lie far away."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
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
from pacavit.clustering.functional._points import squared_distances
from pacavit.clustering.functional._starts import initial_centers
from pacavit.clustering.kept import keep_largest
from pacavit.types import Grid

Labels = Callable[[np.ndarray], np.ndarray]

quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def calm_scikit_learn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def tensor_forms() -> AbstractContextManager[Any]:
    """The tensor operations that other devices use, on the CPU."""
    stack = ExitStack()
    for module, name, other in (
        (_kmeans, "lloyd_compiled", _kmeans.lloyd_tensors),
        (_mixture, "fit_compiled", _mixture.fit_tensors),
        (_agglomerative, "merge_compiled", _agglomerative.merge_tensors),
        (_dbscan, "connect_compiled", _dbscan.connect_tensors),
        (_dbscan, "reach_compiled", _dbscan.reach_tensors),
    ):
        stack.enter_context(patch.object(module, name, other))
    return stack


both_forms = pytest.mark.parametrize("form", [nullcontext, tensor_forms], ids=["loops", "tensors"])


@st.composite
def far_points(draw: st.DrawFn) -> Tensor:
    """(1, N, C) float32: groups a gap apart, perhaps one outlier, scaled, and far from 0."""
    number, width = draw(st.integers(8, 60)), draw(st.integers(1, 20))
    gap = draw(st.sampled_from((0.0, 10.0, 1e3, 1e4, 1e5)))
    scale = draw(st.sampled_from((1e-3, 1.0, 1e3)))
    offset = draw(st.sampled_from((0.0, 10.0, 1e5)))
    draws = np.random.default_rng(draw(st.integers(0, 9999)))
    x = draws.normal(size=(number, width))
    x[:, 0] += gap * draws.integers(0, 3, size=number)
    if draw(st.booleans()):
        x[draws.integers(number), draws.integers(width)] += 1e5
    return torch.from_numpy(scale * (x + offset)).float()[None]


def canonical(labels: Any) -> list[int]:
    """Clusters numbered by their first points, -1 as it is."""
    names: dict[int, int] = {-1: -1}
    return [names.setdefault(int(label), len(names) - 1) for label in labels]


def expected_labels(one: Labels, x: Tensor) -> list[int] | None:
    """scikit-learn's partition, or None where its float32 and float64 differ or one fails."""
    try:
        single, double = (canonical(one(x[0].numpy().astype(kind))) for kind in ("f4", "f8"))
    except ValueError:  # a variance that rounding made negative
        return None
    return single if single == double else None


def check(found: Callable[[], Any], one: Labels, x: Tensor) -> None:
    expected = expected_labels(one, x)
    forms: tuple[Callable[[], AbstractContextManager[Any]], ...] = (nullcontext, tensor_forms)
    for form in forms:
        with form():
            labels = canonical(found().labels[0])
        if expected is not None:
            assert labels == expected


@quick
@given(far_points(), st.floats(0.3, 3), st.integers(2, 5))
def test_dbscan(x: Tensor, nearness: float, min_samples: int) -> None:
    typical = torch.cdist(x.double(), x.double()).kthvalue(3, dim=2).values.median().item()
    eps = nearness * typical or 1.0
    check(
        lambda: dbscan(x, eps, min_samples=min_samples),
        lambda image: DBSCAN(eps=eps, min_samples=min_samples).fit(image).labels_,
        x,
    )


@quick
@given(far_points(), st.sampled_from(("ward", "average", "complete")), st.integers(2, 8))
def test_agglomerative(x: Tensor, linkage: str, clusters: int) -> None:
    check(
        lambda: agglomerative(x, clusters, linkage=linkage),
        lambda image: AgglomerativeClustering(clusters, linkage=linkage).fit(image).labels_,
        x,
    )


@quick
@given(far_points(), st.integers(2, 8))
def test_kmeans(x: Tensor, clusters: int) -> None:
    init = x[:, :clusters]
    check(
        lambda: kmeans(x, clusters, init=init),
        lambda image: (
            KMeans(clusters, init=init[0].numpy().astype(image.dtype), n_init=1).fit(image).labels_
        ),
        x,
    )


@quick
@given(far_points(), st.integers(2, 5), st.sampled_from(("diag", "spherical", "full")))
def test_gaussian_mixture(x: Tensor, components: int, covariance: str) -> None:
    width = x.shape[2]
    variance = x[0].double().var(0).mean().item() or 1.0
    shape = {"spherical": (), "diag": (width,), "full": (width, width)}[covariance]
    ones = np.eye(width) if covariance == "full" else np.ones(shape)
    starts: dict[str, np.ndarray] = {
        "weights_init": np.full(components, 1 / components),
        "means_init": x[0, :components].numpy().astype(np.float64),
        "precisions_init": np.broadcast_to(ones / variance, (components, *shape)).copy(),
    }
    options = {"covariance_type": covariance, "reg_covar": 1e-3 * variance, "max_iter": 20}
    tensors = {name: torch.from_numpy(value)[None] for name, value in starts.items()}

    def one(image: np.ndarray) -> np.ndarray:
        own = {name: value.astype(image.dtype) for name, value in starts.items()}
        return GaussianMixture(components, **options, **own).fit_predict(image)

    def is_clear() -> bool:
        """Whether no point has equal probabilities but for rounding to float32."""
        image = x[0].numpy().astype(np.float64)
        try:
            fitted = GaussianMixture(components, **options, **starts).fit(image)
        except ValueError:  # a variance that rounding made negative
            return True
        second, first = np.sort(fitted.predict_proba(image), axis=1)[:, -2:].T
        return bool((first - second).min() > 1e-5)

    # scikit-learn's float32 may agree with its float64 by chance.
    assume(is_clear())
    check(lambda: gaussian_mixture(x, components, **options, **tensors), one, x)  # type: ignore[arg-type]


@both_forms
def test_a_point_a_radius_away_is_in_the_group_however_far_the_others(
    form: Callable[[], Any],
) -> None:
    x = torch.tensor([[[0.0], [0.5], [1.0], [10000.0], [10000.5], [10003.0]]])
    with form():
        assert dbscan(x, 1.0, min_samples=2).labels.tolist() == [[0, 0, 0, 1, 1, -1]]


@both_forms
@pytest.mark.parametrize("covariance", ["diag", "spherical", "full"])
def test_variances_of_groups_that_lie_far_apart(form: Callable[[], Any], covariance: str) -> None:
    x = torch.tensor([[[0.0], [1.0], [10000.0], [10001.0]]])
    with form():
        found = gaussian_mixture(x, 2, covariance_type=covariance, init="farthest", reg_covar=0)
    torch.testing.assert_close(found.covariances.flatten(), torch.tensor([0.25, 0.25]))
    assert sorted(found.means.flatten().tolist()) == pytest.approx([0.5, 10000.5])
    assert canonical(found.labels[0]) == [0, 0, 1, 1]


@both_forms
@pytest.mark.parametrize("linkage", ["ward", "average", "complete"])
@pytest.mark.parametrize("gap", [1e3, 1e4, 1e5])
def test_merges_inside_a_group_do_not_depend_on_a_far_group(
    form: Callable[[], Any], linkage: str, gap: float
) -> None:
    near = torch.tensor([0.0, 0.25, 1.0, 1.75, 3.0, 3.25])
    x = torch.cat([near, near + gap])[None, :, None]
    with form():
        labels = agglomerative(x, 6, linkage=linkage).labels[0].tolist()
        alone = agglomerative(x[:, :6], 3, linkage=linkage).labels[0].tolist()
    assert labels == [*alone, *(label + 3 for label in alone)]
    assert alone == [0, 0, 1, 1, 2, 2]


@both_forms
def test_kmeans_of_groups_that_lie_far_apart(form: Callable[[], Any]) -> None:
    x = torch.tensor([[[0.0], [0.25], [1.0], [1.25], [10000.0], [10000.25], [10001.0], [10001.25]]])
    with form():
        found = kmeans(x, 4, init=x[:, 1::2], tol=0)
    assert found.labels.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]
    assert found.centers.flatten().tolist() == [0.125, 1.125, 10000.125, 10001.125]
    assert found.inertia.item() == 8 * 0.125**2


def test_starts_are_points_to_the_last_bit() -> None:
    x = torch.tensor([[[0.1], [0.30000001], [10000.1], [10000.3], [-20000.7]]])
    mask = torch.ones(1, 5, dtype=torch.bool)
    for init in ("farthest", "k-means++", "random"):
        centers = initial_centers(x, 5, init, mask, 0)
        assert sorted(centers.flatten().tolist()) == sorted(x.flatten().tolist())


def test_distances_by_differences_and_outliers_of_far_groups() -> None:
    x = torch.tensor([[[0.0], [0.5], [1.5], [10000.0], [10000.5]]])
    found = squared_distances(x, x)
    assert torch.equal(found, torch.cdist(x.double(), x.double()).square())
    mask = torch.ones(1, 5, dtype=torch.bool)
    kept = keep_largest(torch.tensor([[0, 0, -1, 1, 1]]), 2, x, mask, "nearest")
    assert kept.tolist() == [[0, 0, 0, 1, 1]]


@pytest.mark.parametrize("name", ["kmeans", "gmm", "hierarchical", "dbscan"])
def test_clusterings_of_tokens_far_from_zero_are_those_of_the_same_tokens_near(name: str) -> None:
    """Multiples of 1/64 remain exact in float32 when 4096 is added."""
    from pacavit.clustering import CLUSTERINGS

    near = (torch.randn(2, 36, 12) * 64).round() / 64
    options: dict[str, Any] = {"temperature": 0.02} if name in ("kmeans", "gmm") else {}
    module = CLUSTERINGS.create(name, 12, 4, options=options)
    expected = module(near, Grid(6, 6))
    found = module(near + 4096, Grid(6, 6))
    torch.testing.assert_close(found.weights, expected.weights, atol=1e-3, rtol=1e-3)


@both_forms
def test_the_radius_of_the_nth_nearest_reaches_it(form: Callable[[], Any]) -> None:
    x = 1e4 * torch.randint(0, 3, (4, 200, 1)) + torch.randn(4, 200, 6)
    mask = torch.ones(4, 200, dtype=torch.bool)
    with form():
        radius = _dbscan.reach(x, mask, 3)
        for point in range(0, 200, 20):
            distances = squared_distances(x, x)[:, point]
            within = distances <= radius[:, point, None] * (1 + 1e-12)
            assert within.sum(1).tolist() == [3] * 4
            core = _dbscan.connect(x, radius[:, point], 3, mask)[:, point] >= 0
            assert core.all()
