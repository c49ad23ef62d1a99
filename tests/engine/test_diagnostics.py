from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from pacavit.clustering import CLUSTERINGS, Clustering
from pacavit.engine import train
from pacavit.engine.diagnostics import (
    Degeneration,
    DegenerationReport,
    collect_statistics,
    silhouette,
)
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
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("all their patches in one cluster") == 2  # one for each stage
    for stage in (0, 1):
        assert f"warning: epoch 2 of 2, clustering of stage {stage}: most images" in printed
    assert "The trained network has this fault; to mend it, change" in printed
    for row in read_metrics(run):
        assert row["clusters_used"] == 1


def test_degenerations_are_reported_after_the_first_epochs_and_again_at_the_end() -> None:
    one, other = Degeneration("clustering of stage 0", "a"), Degeneration("the clustering", "b")
    report = DegenerationReport(epochs=30)
    assert [report.lines([one], epoch) for epoch in (1, 2)] == [[], []]
    [line] = report.lines([one], 3)
    assert line.startswith("epoch 3 of 30, clustering of stage 0: a. ")
    assert "It may still recover, and is reported again at the end" in line
    assert report.lines([one], 4) == []
    [line] = report.lines([one, other], 5)
    assert line.startswith("epoch 5 of 30, the clustering: b. ")
    [line] = report.lines([one], 30)
    assert "The trained network has this fault; to mend it, change model.clustering_opt" in line


@pytest.mark.parametrize(("epochs", "first"), [(1, 1), (2, 2), (10, 2), (21, 3), (300, 30)])
def test_short_runs_are_judged_at_their_end(epochs: int, first: int) -> None:
    found = [Degeneration("the clustering", "a")]
    report = DegenerationReport(epochs)
    told = [epoch for epoch in range(1, epochs + 1) if report.lines(found, epoch)]
    assert told == list(dict.fromkeys([first, epochs]))


@pytest.mark.parametrize(("clustering", "stages"), [("conv", ["0", "1"]), ("teacher", ["0", "1"])])
def test_clusterings_are_named_by_their_stage(clustering: str, stages: list[str]) -> None:
    network = timm.create_model("pacavit_nano", num_classes=2, clustering=clustering)
    with collect_statistics(network) as statistics:
        pass
    assert list(statistics.names.values()) == [f"clustering of stage {stage}" for stage in stages]


def test_every_clustering_is_judged_by_itself() -> None:
    soft, hard = CLUSTERINGS.get("mlp")(4, 3), Fixed(4, 5)
    x, grid = torch.randn(2, 6, 4), Grid(2, 3)
    hard.answer = torch.arange(6).clamp(max=4).expand(2, 6)
    for parameter in soft.parameters():
        nn.init.normal_(parameter)
    with collect_statistics(nn.ModuleList([soft, hard])) as statistics:
        soft(x, grid)
        hard(x, grid)
    assert not statistics.degenerate()
    hard.answer = torch.zeros(2, 6, dtype=torch.int64)
    for parameter in soft.parameters():
        nn.init.zeros_(parameter)
    with collect_statistics(nn.ModuleList([soft, hard])) as statistics:
        soft(x, grid)
        hard(x, grid)
    soft_one, hard_one = statistics.degenerate()
    assert soft_one == ("clustering 0", "every patch belongs equally to all clusters")
    assert hard_one.where == "clustering 1"
    assert hard_one.what.endswith("all their patches in one cluster, or are nothing but noise")


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
    (complaint,) = statistics.degenerate()
    assert message in complaint.what


@pytest.mark.parametrize("name", ["kmeans", "gmm", "hierarchical", "dbscan"])
def test_options_as_shipped_are_no_degeneration(name: str) -> None:
    module = CLUSTERINGS.get(name)(8, 5)
    groups = 4 * torch.eye(8)[:5].repeat_interleave(9, 0)
    with collect_statistics(module) as statistics:
        module(groups + torch.randn(3, 45, 8), Grid(5, 9))
    assert not statistics.degenerate()


def test_a_single_cluster_is_no_degeneration() -> None:
    module = CLUSTERINGS.get("mlp")(4, 1)
    with collect_statistics(module) as statistics:
        module(torch.randn(2, 6, 4), Grid(2, 3))
    assert not statistics.degenerate()


def test_tokens_that_are_no_numbers_have_no_silhouette() -> None:
    module = CLUSTERINGS.get("grid")(4, 3)
    with collect_statistics(module) as statistics:
        module(torch.full((2, 6, 4), torch.nan), Grid(2, 3))
    assert "clusters_silhouette" not in statistics.means()


def test_the_silhouette_of_many_tokens_is_that_of_some_of_them() -> None:
    labels = torch.arange(40_000) % 4
    x = 10 * torch.eye(8)[labels] + torch.randn(40_000, 8)
    found = silhouette(x, labels)  # all pairs would need 12 GB
    few = silhouette(x[:1000], labels[:1000])
    assert found is not None
    assert found == pytest.approx(few, abs=0.03)
