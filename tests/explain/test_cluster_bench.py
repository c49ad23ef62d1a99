"""The clusters of a model, measured: against known objects, mirrored, and left out."""

import pytest
import torch
from torch import Tensor, nn

from pacavit.data import Batch
from pacavit.explain import cluster_bench
from pacavit.explain.cluster_bench import AGREEMENT, HEALTH, OWN, StageScores, bench_clusters
from pacavit.models import PacaViT
from pacavit.types import Grid


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
    return bench_clusters(model, batches, objects=quarter if objects else None, drops=2)


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


def test_clusters_that_are_not_there_have_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
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
    found = cluster_bench._agreement_of_ranks(values, falls)
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
    assert bench_clusters(model, [batch]) == []
