from __future__ import annotations

import pytest
import torch
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve
from torch import Tensor

from pacavit.explain.evaluation.metrics import impute, road, top_area


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 24, 16, generator=torch.Generator().manual_seed(0))


def drawn(images: Tensor) -> Tensor:
    return torch.rand(images[:, 0].shape, generator=torch.Generator().manual_seed(1))


def solved(image: Tensor, missing: Tensor) -> Tensor:
    """What grad-cam's system of equations gives; its own call fails with NumPy 2."""
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer, neighbors_weights

    system, right = NoisyLinearImputer.setup_sparse_system(
        (~missing).float().numpy(), image.numpy(), neighbors_weights
    )
    found = image.clone()
    found[:, missing] = torch.tensor(spsolve(csc_matrix(system), right)).T.to(image)
    return found


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_pixels_are_imputed_as_grad_cam_does(images: Tensor, share: float) -> None:
    missing = top_area(drawn(images), share)
    found = impute(images, missing, noise=0)
    theirs = torch.stack([solved(*each) for each in zip(images, missing, strict=True)])
    torch.testing.assert_close(found, theirs, atol=1e-3, rtol=0)
    assert torch.equal(found.movedim(1, 3)[~missing], images.movedim(1, 3)[~missing])


def test_nothing_and_everything_can_be_missing(images: Tensor) -> None:
    whole = torch.ones_like(images[:, 0], dtype=torch.bool)
    assert torch.equal(impute(images, ~whole), images)
    assert torch.equal(impute(images, whole, noise=0), torch.zeros_like(images))
    found = impute(images, whole)
    assert found.std() == pytest.approx(0.01, rel=0.1)
    mixed = torch.stack([whole[0], ~whole[1], top_area(drawn(images), 0.5)[2]])
    assert impute(images, mixed).isfinite().all()


def test_it_is_half_of_least_minus_most_at_every_share(images: Tensor) -> None:
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 24 * 16, 4))
    maps, classes = drawn(images), torch.tensor([0, 3, 1])
    found = road(linear, images, maps, classes, noise=0)
    for number, label in enumerate(classes.tolist()):
        left = {}
        for sign in (1, -1):
            removed = [
                solved(images[number], top_area(sign * maps, share)[number])
                for share in (0.2, 0.4, 0.6, 0.8)
            ]
            left[sign] = linear(torch.stack(removed)).softmax(1)[:, label].mean()
        assert found[number].item() == pytest.approx((left[-1] - left[1]).item() / 2, abs=1e-3)
    torch.testing.assert_close(road(linear, images, -maps, classes, noise=0), -found)
