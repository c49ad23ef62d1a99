"""On what a trained network makes of photographs, every function finds what scikit-learn finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import DBSCAN, AgglomerativeClustering, KMeans
from sklearn.datasets import load_sample_images
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.nn import functional as F

from pacavit.clustering.base import Clustering
from pacavit.clustering.functional import agglomerative, dbscan, gaussian_mixture, kmeans
from pacavit.engine import load_model

M = 16


@pytest.fixture(scope="module")
def features_by_stage() -> list[Tensor]:
    """What the clusterings of two stages read in six parts of two photographs: (B, N, C)."""
    photographs = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2)
    small = F.interpolate(photographs / 255, size=(32, 96), mode="area")
    parts = torch.cat(small.split(32, dim=3))
    images = (parts - parts.mean((0, 2, 3), keepdim=True)) / parts.std((0, 2, 3), keepdim=True)
    network = load_model("cifar10_nano_kmeans").classifier.eval().model
    read: list[Tensor] = []
    for module in network.modules():
        if isinstance(module, Clustering):
            module.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].double()))
    with torch.no_grad():
        network(images)
    return read


@pytest.fixture(params=[0, 1], ids=["stage 0", "stage 1"])
def features(request: pytest.FixtureRequest, features_by_stage: list[Tensor]) -> Tensor:
    found = features_by_stage[request.param]
    assert found.shape == ((6, 256, 64), (6, 64, 128))[request.param]
    return found


def test_kmeans(features: Tensor) -> None:
    init = features[:, ::3][:, :M]
    found = kmeans(features, M, init=init)
    for image, x in enumerate(features.numpy()):
        oracle = KMeans(M, init=init[image].numpy(), n_init=1).fit(x)
        assert found.labels[image].tolist() == oracle.labels_.tolist()
        assert found.inertia[image].item() == pytest.approx(oracle.inertia_, rel=1e-9)


@pytest.mark.parametrize("covariance", ["diag", "spherical", "full"])
def test_gaussian_mixture(features: Tensor, covariance: str) -> None:
    x = features if covariance != "full" else features[..., :8]
    images, _, width = x.shape
    means = x[:, ::3][:, :M]
    shape = {"spherical": (), "diag": (width,), "full": (width, width)}[covariance]
    ones = torch.eye(width).double() if covariance == "full" else torch.ones(shape).double()
    precisions = ones.expand(images, M, *shape)
    weights = torch.full((images, M), 1 / M).double()
    options: dict[str, Any] = {"covariance_type": covariance, "reg_covar": 1e-2, "max_iter": 100}
    starts: dict[str, Any] = {
        "weights_init": weights,
        "means_init": means,
        "precisions_init": precisions,
    }
    found = gaussian_mixture(x, M, **options, **starts)
    for image in range(images):
        own = {name: value[image].numpy() for name, value in starts.items()}
        oracle = GaussianMixture(M, **options, **own).fit(x[image].numpy())
        expected = oracle.predict_proba(x[image].numpy())
        np.testing.assert_allclose(found.responsibilities[image], expected, atol=1e-6)
        assert found.lower_bound[image].item() == pytest.approx(oracle.lower_bound_, abs=1e-6)


@pytest.mark.parametrize("linkage", ["ward", "average", "complete"])
def test_agglomerative(features: Tensor, linkage: str) -> None:
    found = agglomerative(features, M, linkage=linkage)
    for image, x in enumerate(features.numpy()):
        oracle = AgglomerativeClustering(M, linkage=linkage).fit(x)
        assert adjusted_rand_score(found.labels[image], oracle.labels_) == 1


def test_dbscan(features: Tensor) -> None:
    fifth = torch.cdist(features, features).kthvalue(6, dim=2).values
    eps = 1.001 * fifth.median().item()
    found = dbscan(features, eps, min_samples=5)
    assert 1 < found.n_clusters.max() < features.shape[1]
    for image, x in enumerate(features.numpy()):
        oracle = DBSCAN(eps=eps, min_samples=5).fit(x)
        assert found.labels[image].tolist() == oracle.labels_.tolist()
