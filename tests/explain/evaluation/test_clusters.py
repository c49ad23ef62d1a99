"""The clusters of a model, measured: against known objects, mirrored, and left out."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn

from pacavit.clustering.base import Clustering
from pacavit.data import Batch
from pacavit.engine.weights.load import LoadedModel
from pacavit.explain.core import maps
from pacavit.explain.evaluation import clusters as cluster_bench
from pacavit.explain.evaluation.clusters import (
    AGREEMENT,
    HEALTH,
    OWN,
    StageScores,
    evaluate_clusters,
)
from pacavit.models import PacaViT
from pacavit.types import Grid

MakeModel = Callable[..., LoadedModel]


def scored(objects: bool, **options: object) -> list[StageScores]:
    torch.manual_seed(0)
    model = PacaViT(
        embed_dims=(8, 12, 16),
        depths=(1, 1, 1),
        num_heads=(2, 2, 4),
        num_clusters=(4, 4, 0),
        num_classes=3,
        **options,  # type: ignore[arg-type]
    ).eval()
    images = 0.1 * torch.randn(6, 3, 32, 32)
    images[:, :, :16, 16:] += 2
    batches = [
        Batch(images[part], torch.zeros(3, dtype=torch.int64), torch.arange(3))
        for part in (slice(3), slice(3, None))
    ]
    return evaluate_clusters(model, batches, objects=quarter if objects else None, drops=2)


def quarter(indices: Tensor) -> Tensor:
    found = torch.zeros(len(indices), 32, 32, dtype=torch.uint8)
    found[:, :16, 16:] = 1
    return found


@pytest.mark.parametrize("clustering", ["conv", "kmeans", "hierarchical", "dbscan", "teacher"])
def test_every_measure_of_every_stage(clustering: str) -> None:
    stages = scored(True, clustering=clustering)
    assert [stage.stage for stage in stages] == [0, 1]
    for stage in stages:
        assert stage.num_clusters == 4
        assert next(iter(stage.agreement)) == OWN
        assert len(stage.agreement) == 4
        for scores in stage.agreement.values():
            assert scores.keys() == AGREEMENT.keys()
            assert all(len(values) == 6 for values in scores.values())
        assert stage.health.keys() == HEALTH.keys()
        assert len(stage.health["flip"]) == 6
        assert len(stage.health["drop"]) == 4
        assert stage.health["overlap"].min() >= -1e-6
        assert stage.health["used"].max() <= 4


def test_absent_clusters_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def controls(images: Tensor, number: int, grid: Grid) -> dict[str, Tensor]:
        asked.append(number)
        return {}

    monkeypatch.setattr(cluster_bench, "_controls", controls)
    stages = scored(True, clustering="dbscan", clustering_options={"quantile": 0.2})
    assert {1, 2} <= set(stages[1].health["clusters"].tolist())
    for stage in stages:
        alone = stage.health["clusters"][[0, 1, 3, 4]] < 2
        assert torch.equal(stage.health["drop"].isnan(), alone)
    assert set(asked) == {2, 3}


def test_ranks_are_of_the_clusters_that_are_known() -> None:
    values = torch.tensor([[3.0, 2.0, 1.0, 0.0], [1.0, 2.0, 0.0, 0.0]])
    falls = torch.tensor([[0.3, 0.2, 0.1, torch.nan], [torch.nan] * 4])
    found = cluster_bench._rank_correlations(values, falls)
    assert found[0] == 1
    assert found[1].isnan()


def test_cells_of_the_grid_fit_an_object_that_is_one() -> None:
    grid = scored(True, clustering="hierarchical")[0].agreement["grid partition"]
    assert grid["mBO"].min() > 0.75
    own = scored(True, clustering="grid")[0].agreement
    for measure in AGREEMENT:
        torch.testing.assert_close(own[OWN][measure], own["grid partition"][measure])


def test_without_masks_there_is_no_agreement() -> None:
    assert all(not stage.agreement and stage.health for stage in scored(False))


def test_a_model_without_clusters_has_no_scores() -> None:
    model: nn.Module = PacaViT(
        embed_dims=(8,), depths=(1,), num_heads=(2,), num_clusters=(0,), num_classes=3
    ).eval()
    batch = Batch(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]), torch.arange(2))
    assert evaluate_clusters(model, [batch]) == []


class Corner(Clustering):
    """Cluster 0 is the upper left corner, whatever the image shows."""

    def labels(self, x: Tensor, grid: Grid) -> Tensor:
        other = torch.ones(len(x), *grid, dtype=torch.int64, device=x.device)
        other[:, : grid.height // 2, : grid.width // 4] = 0
        return other.flatten(1)


class Quarters(Clustering):
    """Clusters 0, 1 above 2, 3, whatever the image shows."""

    def labels(self, x: Tensor, grid: Grid) -> Tensor:
        lower = torch.arange(grid.height, device=x.device) >= grid.height // 2
        right = torch.arange(grid.width, device=x.device) >= grid.width // 2
        return (2 * lower[:, None] + right).flatten().expand(len(x), -1)


class Scores(Clustering):
    """Heatmaps that were made beforehand, the same for all images."""

    def __init__(self, heatmap: Tensor) -> None:
        super().__init__(8, len(heatmap))
        self.heatmap = heatmap

    def scores(self, x: Tensor, grid: Grid) -> Tensor:
        return self.heatmap.log().expand(len(x), -1, -1)


def health_of(
    model: LoadedModel, images: Tensor, clustering: Clustering | None = None, drops: int = 8
) -> Mapping[str, Tensor]:
    """Measures of a network of one stage and block, if wanted with another clustering."""
    network = model.classifier.model
    if clustering is not None:
        (stage,) = network.stages  # type: ignore[misc]
        stage.blocks[0].clustering = clustering
    batch = Batch(images, torch.zeros(len(images), dtype=torch.int64), torch.arange(len(images)))
    (scores,) = evaluate_clusters(network, [batch], drops=drops)
    return scores.health


def bright_corner() -> Tensor:
    images = -torch.ones(2, 3, 32, 32)
    images[0, :, :16, :8] = 1
    images[1, :, 12:20, 20:] = 1
    return images


def test_clusters_that_follow_the_image_are_mirrored_with_it(bright_model: MakeModel) -> None:
    found = health_of(bright_model(), bright_corner())["flip"]
    torch.testing.assert_close(found, torch.ones(2, dtype=torch.float64))


def test_clusters_that_stay_in_place_are_not_mirrored(bright_model: MakeModel) -> None:
    assert health_of(bright_model(), bright_corner(), Corner(8, 2))["flip"].max() < 0.1


# Clusters that are whole patches apart, and the mean over the pairs of their cosines.
@pytest.mark.parametrize(
    ("clusters", "overlap"),
    [
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], 0),
        ([[1, 2, 3], [1, 2, 3], [1, 2, 3]], 1),
        ([[1, 0, 0], [1, 0, 0], [0, 0, 1]], 1 / 3),
        ([[1, 0, 0], [1, 1, 0], [0, 1, 0]], 2 * 0.5**0.5 / 3),
    ],
)
def test_overlap_is_the_mean_cosine_of_heatmaps(
    bright_model: MakeModel, clusters: list[list[int]], overlap: float
) -> None:
    heatmap = torch.zeros(3, 16 * 16)
    heatmap[:, :3] = torch.tensor(clusters)
    found = health_of(bright_model(clusters=3), bright_corner(), Scores(heatmap))["overlap"]
    assert found.tolist() == pytest.approx([overlap] * 2, abs=1e-5)


def test_what_is_lost_without_clusters_against_what_was_said_of_them(
    bright_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    falls = torch.tensor([[4.0, -1.0, 2.0, 3.0], [0.0, 1.0, 5.0, -2.0]])
    # In the order of the falls, and in the opposite one; the third image is one too many.
    important = torch.tensor([[9.0, 1.0, 3.0, 5.0], [4.0, 3.0, 1.0, 8.0], [7.0, 0.0, 0.0, 0.0]])
    contributed = torch.tensor([[3.0, -9.0, 1.0, 2.0], [1.0, 0.5, -7.0, 2.0]])
    pixels = contributed.view(2, 2, 2).repeat_interleave(16, 1).repeat_interleave(16, 2)
    monkeypatch.setattr(cluster_bench, "cluster_drops", lambda *_, **__: falls)
    monkeypatch.setattr(maps, "importance", lambda _: important)
    monkeypatch.setattr(cluster_bench, "pixel_contributions", lambda *_, **__: pixels)
    found = health_of(bright_model(clusters=4), torch.randn(3, 3, 32, 32), Quarters(8, 4), drops=2)
    for measure, expected in (
        ("drop", [2, 1]),
        ("top drop", [4, -2]),
        ("rank", [1, -1]),
        ("rank, contributions", [1, -1]),
    ):
        assert found[measure].tolist() == pytest.approx(expected), measure
