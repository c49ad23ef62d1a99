"""Super tokens: against loops over patches and their neighboring cells."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pacavit.clustering import CLUSTERINGS
from pacavit.clustering.grid import grid_cells
from pacavit.errors import RecipeError
from pacavit.types import Grid


def build(clusters: int, **options: Any) -> Any:
    return CLUSTERINGS.create("super_tokens", 6, clusters, options=options)


def neighbors(clusters: int, grid: Grid) -> list[set[int]]:
    """The cells around each patch, from the layout of the cells."""
    cells = grid_cells(clusters, grid, torch.device("cpu")).view(*grid)
    bands: list[list[int]] = []  # the cell at each column
    band_of_row = []
    for row in cells.tolist():
        if not bands or row != bands[-1]:
            bands.append(row)
        band_of_row.append(len(bands) - 1)
    around = []
    for band in band_of_row:
        for column in range(grid.width):
            found = set()
            for other in range(max(0, band - 1), min(len(bands), band + 2)):
                cell = bands[other][column]
                found |= {cell - 1, cell, cell + 1} & set(bands[other])
            around.append(found)
    return around


def associate(x: Tensor, tokens: Tensor, around: list[set[int]]) -> Tensor:
    """Softmax over the neighbors of each patch: (N, C), (M, C) -> (M, N)."""
    found = torch.zeros(len(tokens), len(x)).double()
    for patch, cells in enumerate(around):
        index = sorted(cells)
        found[index, patch] = (tokens[index] @ x[patch] / 6**0.5).softmax(0)
    return found


@pytest.mark.parametrize(
    ("clusters", "grid"),
    [(9, Grid(6, 6)), (16, Grid(8, 8)), (5, Grid(5, 9)), (7, Grid(6, 5)), (4, Grid(1, 7))],
)
@pytest.mark.parametrize("n_iter", [1, 3])
def test_patches_belong_to_the_super_tokens_around_them(
    clusters: int, grid: Grid, n_iter: int
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, grid.num_patches, 6).double()
    assignment = build(clusters, n_iter=n_iter)(x, grid)
    cells, around = grid_cells(clusters, grid, x.device), neighbors(clusters, grid)
    for image, weights, membership in zip(
        x, assignment.weights, assignment.membership(), strict=True
    ):
        tokens = torch.stack([image[cells == cell].mean(0) for cell in range(clusters)])
        for _ in range(n_iter):
            found = associate(image, tokens, around)
            tokens = found @ image / found.sum(1, keepdim=True)
        torch.testing.assert_close(membership, found)
        torch.testing.assert_close(weights, found / found.sum(1, keepdim=True))


def test_a_patch_in_the_middle_has_nine() -> None:
    around = neighbors(25, Grid(10, 10))
    assert {len(cells) for cells in around} == {4, 6, 9}
    x = torch.randn(1, 100, 6)
    assert (build(25)(x, Grid(10, 10)).weights > 0).sum(1).amax() == 9


def test_few_super_tokens_are_all_around() -> None:
    """Up to 3 x 3 cells, a patch in the middle belongs to all: a softmax over all M."""
    x, grid = torch.randn(2, 81, 6).double(), Grid(9, 9)
    membership = build(9)(x, grid).membership().view(2, 9, 9, 9)[..., 4, 4]
    means = x.view(2, 3, 3, 3, 3, 6).mean((2, 4)).flatten(1, 2)
    center = x.view(2, 9, 9, 6)[:, 4, 4, :, None]
    torch.testing.assert_close(membership, ((means @ center)[..., 0] / 6**0.5).softmax(1))


def test_super_tokens_without_patches_have_no_part() -> None:
    x, grid = torch.randn(2, 4, 6).double(), Grid(2, 2)
    assignment = build(6)(x, grid)
    assert assignment.membership()[:, 4:].eq(0).all()
    torch.testing.assert_close(assignment.membership()[:, :4].sum(1), torch.ones(2, 4).double())
    mask = torch.tensor([[True] * 4 + [False] * 8]).expand(2, -1)  # the last two of three rows
    padded = build(6)(torch.randn(2, 12, 6).double(), Grid(3, 4), mask).membership()
    torch.testing.assert_close(padded.sum(1), mask.double())


def test_gradients_are_finite_with_padding() -> None:
    x = torch.randn(2, 36, 6, requires_grad=True)
    mask = torch.ones(2, 36, dtype=torch.bool)
    mask[:, 20:] = False
    (build(9)(x, Grid(6, 6), mask).weights @ x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad[:, :20].abs().sum() > 0
    assert x.grad[:, 20:].eq(0).all()


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(RecipeError, match="n_iter must be a whole number"):
        build(4, n_iter=0)
