"""Clusterings: what the contract checks do not see."""

import pytest
import torch
from torch import Tensor

from pacavit.clustering import (
    CLUSTERINGS,
    Clustering,
    ConvClustering,
    GridClustering,
    RandomClustering,
)
from pacavit.errors import RecipeError, UnknownNameError
from pacavit.types import Grid


class GivenLabels(Clustering):
    """A hard method that answers prepared labels."""

    answer: Tensor

    def labels(self, x: Tensor, grid: Grid) -> Tensor:
        return self.answer


class Coarse(Clustering):
    """A hard method that may see no more than four tokens."""

    max_tokens = 4

    def labels(self, x: Tensor, grid: Grid) -> Tensor:
        assert x.shape[1] == grid.num_patches <= 4
        self.seen = x
        return torch.arange(grid.num_patches).expand(len(x), -1)


def test_soft_partition_follows_from_weights_and_mass() -> None:
    clustering = ConvClustering(8, 4, kernel_size=3)
    x, grid = torch.randn(2, 30, 8), Grid(5, 6)
    weights, log_mass, valid = clustering(x, grid)
    assert valid is None
    partition = (weights.log() + log_mass[..., None]).argmax(1)
    assert torch.equal(partition, clustering.scores(x, grid).argmax(1))


def test_hard_clusters_are_means_of_members_and_noise_belongs_to_none() -> None:
    clustering = GivenLabels(3, 4)
    clustering.answer = torch.tensor([[0, 0, 2, -1, 2, 2], [-1, -1, -1, -1, -1, -1]])
    weights, log_mass, valid = clustering(torch.randn(2, 6, 3), Grid(2, 3))
    assert valid is not None
    assert valid.tolist() == [[True, False, True, False], [True, False, False, False]]
    third = 1 / 3
    expected = torch.tensor(
        [[0.5, 0.5, 0, 0, 0, 0], [0] * 6, [0, 0, third, 0, third, third], [0] * 6]
    )
    torch.testing.assert_close(weights[0], expected)
    torch.testing.assert_close(weights[1, 0], torch.full((6,), 1 / 6))
    torch.testing.assert_close(log_mass[0].exp(), torch.tensor([2.0, 1, 3, 1]))


def test_all_noise_leaves_padding_out() -> None:
    clustering = GivenLabels(3, 2)
    clustering.answer = torch.full((1, 4), -1)
    mask = torch.tensor([[True, True, False, False]])
    weights = clustering(torch.randn(1, 4, 3), Grid(2, 2), mask).weights
    assert weights[0].tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0, 0]]


def test_large_grids_are_pooled_without_their_padding() -> None:
    clustering, grid = Coarse(1, 4), Grid(4, 3)
    x = torch.arange(12.0).view(1, 12, 1)
    mask = torch.ones(1, 4, 3, dtype=torch.bool)
    mask[:, 3] = False
    weights = clustering(x, grid, mask.flatten(1)).weights
    assert clustering.seen.flatten().tolist() == [2, 3.5, 6.5, 8]
    cells = torch.tensor([[0, 0, 1], [0, 0, 1], [2, 2, 3], [-1, -1, -1]])
    assert torch.equal(weights[0].argmax(0).view(4, 3)[:3], cells[:3])
    assert (weights[0].view(4, 4, 3)[:, 3] == 0).all()


@pytest.mark.parametrize("clusters", [1, 2, 3, 7, 16, 49])
@pytest.mark.parametrize("grid", [Grid(16, 16), Grid(8, 4), Grid(1, 9), Grid(9, 1), Grid(5, 7)])
def test_controls_give_as_many_nearly_equal_cells_as_asked(clusters: int, grid: Grid) -> None:
    x = torch.zeros(1, grid.num_patches, 4)
    for method in (GridClustering, RandomClustering):
        weights, log_mass, valid = method(4, clusters)(x, grid)
        assert valid is not None
        assert int(valid.sum()) == min(clusters, grid.num_patches)
        sizes = log_mass.exp()[valid]
        if method is RandomClustering:
            assert sizes.max() - sizes.min() <= 1.01
        else:
            labels = weights[0].argmax(0).view(*grid)
            for cell in range(int(valid.sum())):
                rows, columns = (labels == cell).nonzero(as_tuple=True)
                area = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
                assert area == len(rows), "a cell is not a rectangle"


def test_random_partition_is_scattered_and_depends_on_its_seed() -> None:
    x, grid = torch.zeros(1, 256, 4), Grid(16, 16)
    labels = [RandomClustering(4, 16, seed=seed).labels(x, grid)[0] for seed in (0, 1)]
    assert not torch.equal(*labels)
    board = labels[0].view(16, 16)
    same_neighbor = (board[:, 1:] == board[:, :-1]).float().mean()
    assert same_neighbor < 3 / 16


def test_soft_weights_are_computed_in_fp32_from_half_precision() -> None:
    clustering = CLUSTERINGS.create("linear", 8, 4, options={}).bfloat16()
    answer = clustering(torch.randn(2, 9, 8, dtype=torch.bfloat16), Grid(3, 3))
    assert answer.weights.dtype == torch.float32


def test_impossible_arguments_name_themselves() -> None:
    with pytest.raises(RecipeError, match="num_clusters must be at least 1"):
        ConvClustering(8, 0)
    with pytest.raises(UnknownNameError, match="did you mean 'kernel_size'"):
        CLUSTERINGS.create("conv", 8, 4, options={"kernel_sise": 3})
    with pytest.raises(ValueError, match="do not fill"):
        ConvClustering(8, 4)(torch.zeros(1, 10, 8), Grid(3, 3))
