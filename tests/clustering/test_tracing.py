"""Traced by torch.jit.trace, every clustering returns for other inputs what it returns eagerly."""

from __future__ import annotations

import io
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import pacavit.models  # noqa: F401 - registers the models
from pacavit.clustering import CLUSTERINGS
from pacavit.types import Grid

pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
]

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in CLUSTERINGS.names()),
    ("kmeans", {"hard": True}),
    ("kmeans", {"init": "farthest"}),
    ("kmeans", {"position_weight": 0.5}),
    ("gmm", {"hard": True}),
    ("gmm", {"covariance": "spherical"}),
    ("hierarchical", {"distance_threshold": 1.5, "outliers": "nearest"}),
    ("dbscan", {"eps": 1.2, "outliers": "cluster"}),
    ("super_tokens", {"n_iter": 2}),
]


class Weights(nn.Module):
    """The weights of a clustering, of tokens on a grid of 5 x 6."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        super().__init__()
        self.clustering = CLUSTERINGS.create(name, 8, 4, options=options)

    def forward(self, x: Tensor) -> Tensor:
        return self.clustering(x, Grid(5, 6)).weights


def traced(module: nn.Module, example: Tensor) -> Any:
    """Traced, written and read again."""
    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, example, check_trace=False), stream)
    stream.seek(0)
    return torch.jit.load(stream)


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_a_traced_clustering_is_the_eager_one(name: str, options: dict[str, Any]) -> None:
    module = Weights(name, options).eval()
    with torch.no_grad():
        program = traced(module, torch.randn(2, 30, 8))
        for images in (1, 2, 5):
            x = torch.randn(images, 30, 8)
            torch.testing.assert_close(program(x), module(x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in CLUSTERINGS.names() if name != "teacher"])
def test_a_traced_network_is_the_eager_one(name: str) -> None:
    model = timm.create_model("pacavit_nano", num_classes=7, clustering=name).eval()
    with torch.no_grad():
        program = traced(model, torch.randn(2, 3, 32, 32))
        for number in (1, 3):
            images = torch.randn(number, 3, 32, 32)
            torch.testing.assert_close(program(images), model(images), atol=1e-5, rtol=1e-4)
