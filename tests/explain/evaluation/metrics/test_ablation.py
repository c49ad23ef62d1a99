from __future__ import annotations

import pytest
import timm
import torch

from pacavit.errors import PacavitError
from pacavit.explain.evaluation.metrics import cluster_drops, randomized, without_cluster
from pacavit.models import PacaViT


def model(clustering: str = "conv") -> PacaViT:
    torch.manual_seed(0)
    found = timm.create_model("pacavit_nano", clustering=clustering, num_classes=5).eval()
    assert isinstance(found, PacaViT)
    return found


@pytest.mark.parametrize("clustering", ["conv", "dbscan"])
def test_a_left_out_cluster_is_missed_and_comes_back(clustering: str) -> None:
    network, images = model(clustering), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = network(images)
        with without_cluster(network, 1, 0):
            inside = network(images)
        after = network(images)
    assert not torch.equal(inside, before)
    assert torch.equal(after, before)
    drops = cluster_drops(network, images, torch.tensor([1, 4]), 1)
    assert drops.shape == (2, 16)
    expected = (before - inside)[[0, 1], [1, 4]]
    torch.testing.assert_close(drops[:, 0], expected)


def test_the_only_cluster_of_an_image_stays() -> None:
    torch.manual_seed(0)
    network = timm.create_model("pacavit_nano", clustering="grid", num_clusters=1).eval()
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad(), without_cluster(network, 0, 0):
        assert network(images).isfinite().all()


def test_stages_and_clusters_that_are_not_there_are_named() -> None:
    network = model()
    with (
        pytest.raises(PacavitError, match="clusters 0 to 15, not 16"),
        without_cluster(network, 0, 16),
    ):
        pass
    with pytest.raises(PacavitError, match="stage 9 has no clusterings"):
        cluster_drops(network, torch.randn(1, 3, 32, 32), torch.tensor([0]), 9)


def test_a_randomized_network_has_the_same_values_elsewhere() -> None:
    network = model()
    other = randomized(network)
    for (name, one), two in zip(network.named_parameters(), other.parameters(), strict=True):
        assert one is not two, name
        assert torch.equal(one.flatten().sort().values, two.flatten().sort().values), name
    images = torch.randn(2, 3, 32, 32)
    assert not torch.allclose(network(images), other(images))
