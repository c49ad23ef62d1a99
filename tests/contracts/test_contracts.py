"""Every registered clustering, attention and model keeps its contract; so does a stranger's."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor

import pacavit.models  # noqa: F401 - registers the models
from pacavit.attention import ATTENTIONS
from pacavit.clustering import CLUSTERINGS
from pacavit.models import PacaViT
from pacavit.models.convert import ORIGINALS
from pacavit.testing import check_attention, check_backbone, check_clustering
from pacavit.types import Grid

SMALL: dict[str, Any] = {
    "embed_dims": (8, 12, 16),
    "depths": (2, 1, 1),
    "num_heads": (2, 2, 4),
    "num_classes": 3,
}


@pytest.mark.parametrize("name", CLUSTERINGS.names())
def test_clustering_keeps_its_contract(name: str) -> None:
    check_clustering(CLUSTERINGS.get(name))


@pytest.mark.parametrize("name", ATTENTIONS.names())
def test_attention_keeps_its_contract(name: str) -> None:
    check_attention(ATTENTIONS.get(name))


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
@pytest.mark.parametrize("name", [n for n in CLUSTERINGS if CLUSTERINGS.get(n).exportable])
def test_exportable_clustering_traces_for_any_batch_and_grid(name: str) -> None:
    class OnMaps(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.clustering = CLUSTERINGS.create(name, 8, 5, options={})

        def forward(self, x: Tensor) -> Tensor:
            grid = Grid(x.shape[2], x.shape[3])
            return self.clustering(x.flatten(2).transpose(1, 2), grid).weights

    module, auto = OnMaps().eval(), torch.export.Dim.AUTO
    shape = {0: auto, 2: auto, 3: auto}
    program = torch.export.export(module, (torch.randn(2, 8, 6, 7),), dynamic_shapes=(shape,))
    x = torch.randn(3, 8, 9, 5)
    torch.testing.assert_close(program.module()(x), module(x), atol=1e-6, rtol=1e-5)
