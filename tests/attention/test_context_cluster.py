"""Context clusters: against their formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.attention import ATTENTIONS
from pacavit.errors import PacavitError, RecipeError
from pacavit.explain.core.record import check_weights
from pacavit.models import PacaViT
from pacavit.types import Grid, StageState


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    module: Any = ATTENTIONS.create(
        "context_cluster", 8, 2, stage=0, block=0, options=options
    ).double()
    with torch.no_grad():
        module.alpha.fill_(3.0)
        module.beta.fill_(-0.5)
    return module


def reference(module: Any, x: Tensor, cells: Tensor) -> Tensor:
    """Of cells (N,), by loops over images, heads and patches."""
    images, number = [], int(cells.max()) + 1
    for image in x:
        heads = []
        for part in (slice(0, 4), slice(4, 8)):
            f, v = module.f(image)[:, part], module.v(image)[:, part]
            f_centers = torch.stack([f[cells == cell].mean(0) for cell in range(number)])
            v_centers = torch.stack([v[cells == cell].mean(0) for cell in range(number)])
            similar = torch.sigmoid(
                -0.5 + 3 * F.cosine_similarity(f_centers[:, None], f[None], dim=2)
            )
            own = similar.argmax(0)
            out = torch.zeros_like(v)
            for cell in range(number):
                members = own == cell
                s = similar[cell, members]
                aggregated = (v_centers[cell] + s @ v[members]) / (1 + s.sum())
                out[members] = s[:, None] * aggregated
            heads.append(out)
        images.append(module.proj(torch.cat(heads, 1)))
    return torch.stack(images)


def test_centers_aggregate_and_dispatch() -> None:
    module, grid, x = build(num_centers=4), Grid(4, 6), torch.randn(2, 24, 8).double()
    cells = (torch.arange(4)[:, None] // 2 * 2 + torch.arange(6) // 3).flatten()
    torch.testing.assert_close(module(x, grid, StageState())[0], reference(module, x, cells))


def test_with_one_center_for_each_patch_a_patch_returns_its_own_value() -> None:
    """Every center is its patch: s = sigmoid(alpha + beta), g = v, and s v comes back."""
    module, x = build(num_centers=20), torch.randn(2, 15, 8).double()
    expected = module.proj(torch.sigmoid(torch.tensor(2.5).double()) * module.v(x))
    torch.testing.assert_close(module(x, Grid(3, 5), StageState())[0], expected)


def test_explanations_by_attention_are_refused_in_one_line() -> None:
    model = PacaViT(embed_dims=(8,), depths=(1,), num_heads=(2,), attention="context_cluster")
    with pytest.raises(PacavitError, match=r"does not implement Attention\.recorded") as caught:
        check_weights(model)
    assert "\n" not in str(caught.value)


def test_centers_must_be_one_or_more() -> None:
    with pytest.raises(RecipeError, match="num_centers must be a whole number"):
        build(num_centers=0)
