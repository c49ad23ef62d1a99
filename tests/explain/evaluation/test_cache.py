"""An evaluation that is interrupted anywhere resumes to the same numbers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pacavit.data import Batch
from pacavit.errors import CheckpointError, PacavitError
from pacavit.explain.evaluation.cache import Cache, FileCache, batch_key, no_cache
from pacavit.explain.evaluation.clusters import StageScores, evaluate_clusters
from pacavit.explain.evaluation.methods import ExplanationScores, evaluate_methods
from pacavit.explain.methods.base import METHODS
from pacavit.models import PacaViT

MakeSmall = Callable[..., PacaViT]
SETTINGS = {"methods": ["class_map", "random"], "limit": 10}


class Killed(BaseException):
    """The process ends here."""


class Stopping:
    """A cache that raises when it would compute one result too many."""

    def __init__(self, parts: FileCache, most: int) -> None:
        self.parts, self.most = parts, most

    def __call__(self, name: str, measure: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        def counted() -> dict[str, Tensor]:
            if not self.most:
                raise Killed
            self.most -= 1
            return measure()

        return self.parts(name, counted)


def batches() -> list[Batch]:
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1])
    numbers = torch.arange(5)
    return [Batch(images[part], labels[part], numbers[part]) for part in (slice(3), slice(3, None))]


def left_half(indices: Tensor) -> Tensor:
    objects = torch.zeros(len(indices), 32, 32, dtype=torch.int64)
    objects[:, :, :16] = 1
    return objects


def measured(network: PacaViT, cache: Cache) -> tuple[ExplanationScores, list[StageScores]]:
    methods = {name: METHODS.get(name) for name in ("class_map", "random")}
    found = evaluate_methods(
        network, methods, batches(), objects=lambda indices: left_half(indices) == 1, cache=cache
    )
    return found, evaluate_clusters(network, batches(), objects=left_half, drops=2, cache=cache)


def numbers(found: tuple[ExplanationScores, list[StageScores]]) -> dict[str, Any]:
    """All of it, in order, but for the times."""
    bench, stages = found
    methods = {row.method: row.values for row in bench.rows}
    clusters = {stage.stage: (stage.agreement, stage.health) for stage in stages}
    return {"methods": methods, "clusters": clusters}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one.nan_to_num(7), other.nan_to_num(7))
    if isinstance(one, tuple):
        return all(map(same, one, other))
    return list(one) == list(other) and all(same(one[name], other[name]) for name in one)


@pytest.fixture
def network(small: MakeSmall) -> PacaViT:
    torch.manual_seed(0)
    return small(clustering="kmeans").eval()


def test_an_evaluation_killed_after_every_result_resumes_to_the_same_numbers(
    network: PacaViT, tmp_path: Path
) -> None:
    whole = measured(network, no_cache)
    folder, told = tmp_path / "parts", list[str]()
    for seed in range(5):  # of 6 parts: 2 batches of 2 methods, and of clusters
        parts = FileCache(folder, log=told.append)
        parts.begin(SETTINGS)
        torch.manual_seed(100 + seed)
        with pytest.raises(Killed):
            measured(network, Stopping(parts, 1))
    parts = FileCache(folder, log=told.append)
    parts.begin(SETTINGS)
    found = measured(network, Stopping(parts, 1))
    assert same(numbers(found), numbers(whole))
    assert found[0].accuracy == whole[0].accuracy
    assert [line.split("stored results: ")[1] for line in told] == list("12345")
    parts.remove()
    assert not folder.exists()


def test_results_of_other_settings_are_refused_or_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    parts = FileCache(folder)
    parts.begin(SETTINGS)
    assert not folder.exists()
    parts("a/b", lambda: {"x": torch.zeros(1)})
    for changed, told in (
        ({"limit": 20}, "limit 10, not 20"),
        ({"methods": ["random"]}, "methods class_map,random, not random"),
        ({"skip": 1}, "skip None, not 1"),
    ):
        with pytest.raises(PacavitError, match=f"{told}; repeat .* --overwrite"):
            FileCache(folder).begin(SETTINGS | changed)
    again = FileCache(folder, overwrite=True)
    again.begin(SETTINGS)
    assert again("a/b", lambda: {"x": torch.ones(1)})["x"] == 0
    again.begin(SETTINGS | {"limit": 20})
    assert again("a/b", lambda: {"x": torch.ones(1)})["x"] == 1
    assert json.loads((folder / "settings.json").read_text())["limit"] == 20


def test_broken_files_are_reported_in_one_line(tmp_path: Path) -> None:
    parts = FileCache(tmp_path)
    parts.begin(SETTINGS)
    parts("a", lambda: {"x": torch.zeros(1)})
    (tmp_path / "a.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"a\.safetensors is broken; remove it"):
        parts("a", lambda: {"x": torch.zeros(1)})
    (tmp_path / "settings.json").write_text("half")
    with pytest.raises(CheckpointError, match=r"cannot read .*settings\.json"):
        parts.begin(SETTINGS)


def test_keys_depend_on_the_images() -> None:
    first, second = batches()
    assert batch_key(first) == batch_key(batches()[0])
    assert batch_key(first) != batch_key(second)
    changed = first.images.clone()
    changed[0, 0, 0, 0] += 1
    assert batch_key(replace(first, images=changed)) != batch_key(first)
