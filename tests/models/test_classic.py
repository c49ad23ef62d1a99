"""Classic clusterings at the sizes of the paper: any model of the family, 224 and 512 pixels."""

from __future__ import annotations

import pytest
import timm
import torch

from pacavit.models import PacaViT

CLASSIC = ("kmeans", "gmm", "hierarchical", "dbscan")
SIZES = ("tiny", "small", "base")


@pytest.mark.parametrize("clustering", CLASSIC)
@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_built_with_every_clustering(size: str, clustering: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(f"pacavit_{size}", clustering=clustering)
    assert isinstance(model, PacaViT)
    kinds = {type(module).__name__.lower() for module in model.modules()}
    assert any(kind.startswith((clustering, "gaussian")) for kind in kinds)


@pytest.mark.slow
@pytest.mark.parametrize("clustering", CLASSIC)
@pytest.mark.parametrize("size", SIZES)
def test_every_size_runs_at_224_and_512(size: str, clustering: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(f"pacavit_{size}", clustering=clustering, num_classes=7).eval()
    for pixels in (224, 512):
        with torch.no_grad():
            scores = model(torch.randn(1, 3, pixels, pixels))
        assert scores.shape == (1, 7)
        assert scores.isfinite().all()
