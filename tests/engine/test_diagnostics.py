from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pacavit.clustering import CLUSTERINGS, Clustering
from pacavit.engine import train
from pacavit.engine.diagnostics import collect_statistics
from pacavit.engine.run.log import read_metrics
from pacavit.recipes import Recipe
from pacavit.types import Grid


class Fixed(Clustering):
    """Prepared labels."""

    answer: Tensor

    def labels(self, x: Tensor, grid: Grid) -> Tensor:
        return self.answer


def test_statistics_of_a_partition() -> None:
    module = Fixed(2, 4)
    module.answer = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0]])
    x = torch.tensor([[0.0, 0.1, 0.2, 9.0, 9.1, 9.2]])[..., None].expand(2, 6, 2)
    with collect_statistics(nn.Sequential(module)) as statistics:
        module(x, Grid(2, 3))
    means = statistics.means()
    assert means["clusters_used"] == 1.5
    assert means["clusters_empty"] == 2.5
    assert means["clusters_entropy"] == 0
    assert means["clusters_silhouette"] > 0.95  # of the first image; the second has one cluster
    module(x, Grid(2, 3))
    assert statistics.means() == means, "hooks outlive the context"


def test_entropy_is_one_where_patches_belong_to_all_clusters_equally() -> None:
    module = CLUSTERINGS.get("mlp")(3, 4)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    mask = torch.tensor([[True] * 5 + [False]])
    with collect_statistics(module) as statistics:
        module(torch.randn(1, 6, 3), Grid(2, 3), mask)
    assert statistics.means()["clusters_entropy"] == pytest.approx(1)
    assert "clusters_silhouette" not in statistics.means()


@pytest.mark.parametrize("name", CLUSTERINGS.names())
def test_memberships_sum_to_one_except_at_padding(name: str) -> None:
    x, grid = 30 * torch.randn(2, 36, 8), Grid(6, 6)
    mask = torch.ones(2, 36, dtype=torch.bool)
    mask[:, 30:] = False
    membership = CLUSTERINGS.get(name)(8, 5)(x, grid, mask).membership()
    torch.testing.assert_close(membership.sum(1), mask.float())


def test_degenerate_clusterings_are_reported_once(
    make_recipe: Callable[..., Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = {"name": "pacavit_nano", "clustering": "dbscan", "clustering_options": {"eps": 1e6}}
    run = train(make_recipe(model=model, epochs=2), tmp_path / "run")
    assert capsys.readouterr().out.count("all their patches in one cluster") == 1
    for row in read_metrics(run):
        assert row["clusters_used"] == 1


def test_every_clustering_is_judged_by_itself() -> None:
    soft, hard = CLUSTERINGS.get("mlp")(4, 3), Fixed(4, 5)
    x, grid = torch.randn(2, 6, 4), Grid(2, 3)
    hard.answer = torch.arange(6).clamp(max=4).expand(2, 6)
    for parameter in soft.parameters():
        nn.init.normal_(parameter)
    with collect_statistics(nn.ModuleList([soft, hard])) as statistics:
        soft(x, grid)
        hard(x, grid)
    assert not statistics.warnings()
    hard.answer = torch.zeros(2, 6, dtype=torch.int64)
    for parameter in soft.parameters():
        nn.init.zeros_(parameter)
    with collect_statistics(nn.ModuleList([soft, hard])) as statistics:
        soft(x, grid)
        hard(x, grid)
    soft_one, hard_one = statistics.warnings()
    assert soft_one.endswith("every patch belongs equally to all clusters")
    assert hard_one.endswith("all their patches in one cluster, or are nothing but noise")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("kmeans", {"temperature": 1e-6}, "nearly every patch has one cluster only, though"),
        ("gmm", {"temperature": 1e-6}, "nearly every patch has one cluster only, though"),
        ("kmeans", {"temperature": 1e9}, "every patch belongs equally to all clusters"),
        ("gmm", {"temperature": 1e9}, "every patch belongs equally to all clusters"),
        ("dbscan", {"eps": 1e-9}, "or are nothing but noise"),
        ("dbscan", {"eps": 1e-9, "outliers": "cluster"}, "or are nothing but noise"),
        ("dbscan", {"eps": 1e9}, "most images have all their patches in one cluster"),
    ],
)
def test_each_kind_of_degenerate_clustering_is_reported(
    name: str, options: dict[str, Any], message: str
) -> None:
    module = CLUSTERINGS.create(name, 8, 5, options=options)
    with collect_statistics(module) as statistics:
        module(torch.randn(3, 36, 8), Grid(6, 6))
    (complaint,) = statistics.warnings()
    assert message in complaint


@pytest.mark.parametrize("name", ["kmeans", "gmm", "hierarchical", "dbscan"])
def test_options_as_shipped_are_no_degeneration(name: str) -> None:
    module = CLUSTERINGS.get(name)(8, 5)
    groups = 4 * torch.eye(8)[:5].repeat_interleave(9, 0)
    with collect_statistics(module) as statistics:
        module(groups + torch.randn(3, 45, 8), Grid(5, 9))
    assert not statistics.warnings()


def test_a_single_cluster_is_no_degeneration() -> None:
    module = CLUSTERINGS.get("mlp")(4, 1)
    with collect_statistics(module) as statistics:
        module(torch.randn(2, 6, 4), Grid(2, 3))
    assert not statistics.warnings()


def test_tokens_that_are_no_numbers_have_no_silhouette() -> None:
    module = CLUSTERINGS.get("grid")(4, 3)
    with collect_statistics(module) as statistics:
        module(torch.full((2, 6, 4), torch.nan), Grid(2, 3))
    assert "clusters_silhouette" not in statistics.means()
