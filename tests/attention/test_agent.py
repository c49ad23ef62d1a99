"""Agent attention: against its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.attention import ATTENTIONS
from pacavit.errors import RecipeError
from pacavit.types import Grid, StageState


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    return ATTENTIONS.create("agent", 8, 2, stage=0, block=0, options=options).double()


def reference(module: Any, x: Tensor, grid: Grid, cells: Tensor) -> Tensor:
    """Of cells (N,), by loops over images and heads."""
    images = []
    for image in x:
        q, k, v = (layer(image) for layer in (module.q, module.k, module.v))
        agents = torch.stack([q[cells == cell].mean(0) for cell in range(int(cells.max()) + 1)])
        heads = []
        for start in (0, 4):
            part = slice(start, start + 4)
            read = (agents[:, part] @ k[:, part].T / 2).softmax(1) @ v[:, part]
            heads.append((q[:, part] @ agents[:, part].T / 2).softmax(1) @ read)
        local = F.conv2d(
            v.T.view(1, 8, *grid), module.depthwise.weight, module.depthwise.bias, 1, 1, 1, 8
        )
        images.append(module.proj(torch.cat(heads, 1) + local.flatten(2)[0].T))
    return torch.stack(images)


def test_agents_are_means_of_queries_in_cells() -> None:
    module, grid, x = build(num_agents=4), Grid(4, 6), torch.randn(2, 24, 8).double()
    rows, columns = torch.arange(4) // 2, torch.arange(6) // 3
    cells = (rows[:, None] * 2 + columns).flatten()
    expected = reference(module, x, grid, cells)
    torch.testing.assert_close(module(x, grid, StageState())[0], expected)


@pytest.mark.parametrize("grid", [Grid(3, 5), Grid(1, 1), Grid(1, 7)])
@pytest.mark.parametrize("num_agents", [15, 40])
def test_with_as_many_agents_as_patches_each_patch_is_one(grid: Grid, num_agents: int) -> None:
    module, x = build(num_agents=num_agents), torch.randn(2, grid.num_patches, 8).double()
    expected = reference(module, x, grid, torch.arange(grid.num_patches))
    torch.testing.assert_close(module(x, grid, StageState())[0], expected)


def test_agents_must_be_one_or_more() -> None:
    with pytest.raises(RecipeError, match="num_agents must be a whole number"):
        build(num_agents=0)
