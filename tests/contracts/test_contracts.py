"""Every registered class and model keeps its contract; so does a stranger's."""

from typing import Any

import pytest
import timm
import torch

import pacavit.models  # noqa: F401 - registers the models
from pacavit.attention import ATTENTIONS
from pacavit.clustering import CLUSTERINGS
from pacavit.detectors import DETECTORS
from pacavit.heads import HEADS
from pacavit.models import PacaViT
from pacavit.models.variants import ORIGINALS
from pacavit.testing import (
    check_attention,
    check_backbone,
    check_clustering,
    check_detector,
    check_head,
)

SMALL: dict[str, Any] = {
    "embed_dims": (8, 12, 16),
    "depths": (2, 1, 1),
    "num_heads": (2, 2, 4),
    "num_classes": 3,
}


@pytest.mark.parametrize("name", CLUSTERINGS.names())
def test_clustering_keeps_its_contract(name: str) -> None:
    check_clustering(CLUSTERINGS.get(name))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("kmeans", {"hard": True}),
        ("kmeans", {"init": "farthest"}),
        ("kmeans", {"init": "k-means++", "hard": True}),
        ("gmm", {"hard": True}),
        ("gmm", {"init": "farthest"}),
        ("gmm", {"covariance": "spherical"}),
        ("hierarchical", {"linkage": "average"}),
        ("hierarchical", {"linkage": "complete"}),
        ("hierarchical", {"distance_threshold": 1.5}),
        ("hierarchical", {"distance_threshold": 1.5, "outliers": "nearest"}),
        ("hierarchical", {"distance_threshold": 100.0}),
        ("dbscan", {"eps": 1.2}),
        ("dbscan", {"eps": 1.2, "outliers": "cluster"}),
        ("dbscan", {"eps": 1e-9, "outliers": "cluster"}),
        ("dbscan", {"outliers": "cluster"}),
        ("super_tokens", {"n_iter": 3}),
        *((name, {"elastic": True}) for name in ("conv", "mlp", "linear")),
        ("dpc_knn", {"k": 1}),
        *(
            (name, {"position_weight": 1.0})
            for name in ("kmeans", "hierarchical", "dbscan", "dpc_knn")
        ),
    ],
)
def test_clustering_keeps_its_contract_with_options(name: str, options: dict[str, Any]) -> None:
    check_clustering(CLUSTERINGS.get(name), options)


@pytest.mark.parametrize("name", ATTENTIONS.names())
def test_attention_keeps_its_contract(name: str) -> None:
    check_attention(ATTENTIONS.get(name))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lsh", {"chunk_size": 4, "num_rounds": 3}),
        ("lsh", {"chunk_size": 1}),
        ("big_bird", {"tile_size": 2}),
        ("big_bird", {"tile_size": 1, "window": 1, "num_global": 0, "num_random": 1}),
        ("slow_fast", {"full_blocks": 3}),
        ("slow_fast", {"keep": 0.1}),
        ("slow_fast", {"keep": 1.0}),
        ("agent", {"num_agents": 4}),
        ("context_cluster", {"num_centers": 4}),
    ],
)
def test_attention_keeps_its_contract_with_options(name: str, options: dict[str, Any]) -> None:
    check_attention(ATTENTIONS.get(name), options)


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("name", HEADS.names())
def test_head_keeps_its_contract(name: str, norm: str) -> None:
    check_head(HEADS.get(name), {"channels": 16, "norm": norm})


LIGHT: dict[str, Any] = {"channels": 32, "fc_channels": 32, "box_rois": 32, "proposals": (80, 40)}
LIGHT_MASKS: dict[str, Any] = LIGHT | {"mask_channels": 16, "mask_convs": 1}
DETECTOR_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "faster_rcnn": [LIGHT, LIGHT | {"variant": "torchvision"}],
    "mask_rcnn": [LIGHT_MASKS, LIGHT_MASKS | {"variant": "torchvision"}],
    "fcos": [{"channels": 64, "convs": 1}],
}


@pytest.mark.parametrize("name", DETECTORS.names())
def test_detector_keeps_its_contract(name: str) -> None:
    for options in DETECTOR_OPTIONS.get(name, [{}]):
        check_detector(DETECTORS.get(name), options)


@pytest.mark.parametrize("name", CLUSTERINGS.names())
def test_backbone_keeps_its_contract_with_every_clustering(name: str) -> None:
    check_backbone(PacaViT(**SMALL, num_clusters=(5, 3, 0), clustering=name))


@pytest.mark.parametrize("name", ATTENTIONS.names())
def test_backbone_keeps_its_contract_with_every_attention(name: str) -> None:
    clusters = 4 if ATTENTIONS.get(name).uses_clusters else None
    check_backbone(PacaViT(**SMALL, num_clusters=clusters, attention=name))


# The authors' names stand for models among these with other arguments.
@pytest.mark.parametrize("name", sorted({*timm.list_models("pacavit_*")} - {*ORIGINALS}))
def test_registered_model_keeps_its_contract(name: str) -> None:
    check_backbone(timm.create_model(name, num_classes=3))


@pytest.mark.slow
@pytest.mark.parametrize("name", CLUSTERINGS.names())
def test_model_compiles_with_every_clustering(name: str) -> None:
    model = PacaViT(**SMALL, num_clusters=(5, 3, 0), clustering=name).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)(images)
    torch.testing.assert_close(compiled, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTENTIONS.names())
def test_model_compiles_with_every_attention(name: str) -> None:
    clusters = 4 if ATTENTIONS.get(name).uses_clusters else None
    model = PacaViT(**SMALL, num_clusters=clusters, attention=name).eval()
    images = torch.randn(2, 3, 64, 80)
    with torch.no_grad():
        expected = model(images)
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)(images)
    torch.testing.assert_close(compiled, expected, atol=1e-5, rtol=1e-5)
