"""Classic clusterings at the sizes of the paper: any model of the family, 224 and 512 pixels."""

from __future__ import annotations

import pytest
import timm
import torch

from pacavit.models import PacaViT

CLASSIC = ("kmeans", "gmm", "hierarchical", "dbscan")


@pytest.mark.parametrize("clustering", CLASSIC)
@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_every_size_is_built_with_every_clustering(size: str, clustering: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(f"pacavit_{size}", clustering=clustering)
    assert isinstance(model, PacaViT)
    kinds = {type(module).__name__.lower() for module in model.modules()}
    assert any(kind.startswith((clustering, "gaussian")) for kind in kinds)


@pytest.mark.slow
@pytest.mark.parametrize("pixels", [224, 512])
@pytest.mark.parametrize("clustering", CLASSIC)
def test_large_images_pass(clustering: str, pixels: int) -> None:
    torch.manual_seed(0)
    model = timm.create_model("pacavit_tiny", clustering=clustering, num_classes=7).eval()
    with torch.no_grad():
        scores = model(torch.randn(1, 3, pixels, pixels))
    assert scores.shape == (1, 7)
    assert scores.isfinite().all()
