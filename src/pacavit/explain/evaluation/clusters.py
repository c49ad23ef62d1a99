"""The clusters of each stage: agreement with objects, their own properties, effect on the score."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.clustering import CLUSTERINGS
from pacavit.clustering.functional import kmeans
from pacavit.data import Batch
from pacavit.engine.diagnostics import collect_statistics, patch_entropy, used_clusters
from pacavit.explain.classification import has_clusters
from pacavit.explain.core import maps
from pacavit.explain.core.geometry import Sampling, samplings, upsample
from pacavit.explain.core.record import BlockRecord, record, record_until
from pacavit.explain.evaluation.cache import Cache, batch_key, no_cache
from pacavit.explain.evaluation.metrics import (
    adjusted_rand_index,
    cluster_drops,
    hungarian_miou,
    mean_best_overlap,
    normalized_mutual_information,
    purity,
    rank_correlation,
    stage_clusterings,
)
from pacavit.explain.methods.base import frozen_eval
from pacavit.explain.methods.contributions import cluster_sums, memberships, pixel_contributions
from pacavit.types import Grid

__all__ = ["AGREEMENT", "HEALTH", "OWN", "Agreement", "StageScores", "evaluate_clusters"]


class Agreement(NamedTuple):
    """A measure of the agreement of a partition with masks of objects.

    Attributes:
        score: from masks (B, H, W) and labels (B, H, W) to (B,).
        meaning: a short description.
    """

    score: Callable[[Tensor, Tensor], Tensor]
    meaning: str


OWN = "the model"
"""Name of the partition by the model's clusters, beside those of the controls."""

AGREEMENT: Mapping[str, Agreement] = MappingProxyType(
    {
        "FG-ARI": Agreement(
            adjusted_rand_index,
            "pairs of object pixels that are together or apart in both, above chance",
        ),
        "mBO": Agreement(mean_best_overlap, "best IoU of any cluster with each object"),
        "Hungarian mIoU": Agreement(hungarian_miou, "the same under the best one-to-one matching"),
        "NMI": Agreement(
            normalized_mutual_information,
            "normalized mutual information with objects and background",
        ),
        "purity": Agreement(
            purity, "fraction of pixels of the most frequent object of their cluster"
        ),
    }
)
"""Measures of agreement with masks of objects by name, higher is better."""

HEALTH: Mapping[str, str] = MappingProxyType(
    {
        "clusters": "number of clusters per image, which some clusterings choose",
        "used": "clusters per image that are the most likely one of some patch",
        "entropy": "normalized entropy of a patch's membership, 0: one cluster, 1: all equally",
        "silhouette": "silhouette of the partition in token space, -1 to 1",
        "overlap": "mean cosine of the heatmaps of two clusters, 0 if disjoint, 1 if equal",
        "flip": "adjusted Rand index with the partition of the mirrored image, 1 if equal",
        "drop": "mean decrease of the class logit without one cluster",
        "top drop": "decrease without the most important cluster, by attention x gradient",
        "rank": "rank correlation of importance and decrease over the clusters of an image",
        "rank, contributions": "the same for the contributions of the pixels of each cluster",
    }
)
"""Properties of the clusters themselves by name."""

_NUMBER, _AGREEMENT, _HEALTH = "number", "agreement", "health"


@dataclass(frozen=True, eq=False)
class StageScores:
    """The scores of the clusters of one stage.

    Attributes:
        stage: index of the stage.
        num_clusters: M.
        agreement: by partition (the model's first) and measure, (images,) float64; empty without
            masks of objects.
        health: by measure, one number per image or per batch, float64.
    """

    stage: int
    num_clusters: int
    agreement: Mapping[str, Mapping[str, Tensor]]
    health: Mapping[str, Tensor]


def evaluate_clusters(
    network: nn.Module,
    batches: Iterable[Batch],
    *,
    objects: Callable[[Tensor], Tensor] | None = None,
    drops: int = 64,
    cache: Cache = no_cache,
) -> list[StageScores]:
    """Measure the clusters of the last block of every stage with clusters.

    Control partitions of the same grid of patches have as many clusters as the images of a batch
    have on average: the cells of a regular grid, a fixed random partition, and k-means of the color
    and position of the patches. The results of a batch do not depend on the batches before it.

    Args:
        network: a classifier in evaluation mode, on the device of the batches.
        batches: normalized images with int64 labels.
        objects: from indices (B,) of images in their split to labels (B, H, W) int, 0 is the
            background and 1 the main object.
        drops: number of images per batch in which each cluster is removed in turn.
        cache: of the results by batch.

    Returns:
        One per stage with clusters.
    """
    if not has_clusters(network):
        return []
    found = []
    for batch in batches:
        inside = None if objects is None else objects(batch.indices).to(batch.images.device).long()
        measure = partial(_measure_batch, network, batch.images, inside, drops)
        found.append(cache(f"clusters-{batch_key(batch)}", measure))
    return _stages(found)


def _stages(results: Sequence[Mapping[str, Tensor]]) -> list[StageScores]:
    """Join the results of ``_measure_batch`` of all batches."""
    found = []
    for stage in sorted({int(name.partition("/")[0]) for name in results[0]}):
        number = int(results[0][f"{stage}/{_NUMBER}"])
        agreement: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, values in _joined(results, f"{stage}/{_AGREEMENT}/").items():
            partition, _, measure = name.partition("/")
            agreement[partition][measure] = values
        health = _joined(results, f"{stage}/{_HEALTH}/")
        found.append(StageScores(stage, number, agreement, health))
    return found


def _joined(results: Sequence[Mapping[str, Tensor]], prefix: str) -> dict[str, Tensor]:
    """Values of all batches by name, of the names with a prefix, without it."""
    names = [name for name in results[0] if name.startswith(prefix)]
    return {
        name.removeprefix(prefix): torch.cat([found[name] for found in results]) for name in names
    }


def _measure_batch(
    network: nn.Module, images: Tensor, objects: Tensor | None, drops: int
) -> dict[str, Tensor]:
    """Values by stage/agreement/partition/measure, stage/health/measure and stage/number (M)."""
    with (
        frozen_eval(network),
        torch.enable_grad(),
        record(network) as recording,
        collect_statistics(network) as statistics,
    ):
        logits = network(images.clone().requires_grad_())
        predicted = logits.argmax(1)
        recording.backward(logits.gather(1, predicted[:, None])[:, 0])
    mirrored = record_until(network, images.flip(3), recording.clustered_stages[-1])
    first = images[:drops]
    with frozen_eval(network), torch.enable_grad():
        contributed = pixel_contributions(network, first, predicted[:drops], steps=2)
    where = samplings(network)
    found: dict[str, Tensor] = {}
    for stage in recording.clustered_stages:
        block, sampling = recording.stage(stage)[-1], where[stage]
        members, real = memberships(block), _real(block)
        found[f"{stage}/{_NUMBER}"] = torch.tensor(real.shape[1])
        if objects is not None:
            number = max(1, round(real.sum(1).double().mean().item()))
            for name, values in _agree(members, number, images, sampling, objects).items():
                found[f"{stage}/{_AGREEMENT}/{name}"] = values.double().cpu()
        own = statistics.values[stage_clusterings(network, stage)[-1]]["silhouette"]
        decreases = cluster_drops(network, first, predicted[:drops], stage)
        sums = cluster_sums(
            contributed, upsample(members[:drops], sampling, (images.shape[2], images.shape[3]))
        )
        health = {"clusters": real.sum(1), "silhouette": torch.tensor(own, dtype=torch.float64)}
        health |= _health(block, members, mirrored.stage(stage)[-1])
        health |= _decreases(decreases, real[:drops], maps.importance(block)[:drops], sums)
        for name, values in health.items():
            found[f"{stage}/{_HEALTH}/{name}"] = values.double().cpu()
    return found


def _real(block: BlockRecord) -> Tensor:
    """Which clusters exist: (B, M) bool; a clustering may find fewer than M."""
    assignment, _ = block.clusters()
    if assignment.valid is not None:
        return assignment.valid
    return torch.ones_like(assignment.weights[:, :, 0], dtype=torch.bool)


def _rank_correlations(values: Tensor, decreases: Tensor) -> Tensor:
    """Spearman's correlation over the clusters with a finite decrease: (B, M), (B, M) -> (B,)."""
    known = decreases.isfinite()
    return torch.cat(
        [
            rank_correlation(one[None, each], other[None, each])
            for one, other, each in zip(values, decreases, known, strict=True)
        ]
    )


def _agree(
    members: Tensor, number: int, images: Tensor, sampling: Sampling, objects: Tensor
) -> dict[str, Tensor]:
    """Agreement with masks by partition/measure; controls have ``number`` clusters."""
    grid, size = Grid(*members.shape[2:]), (images.shape[2], images.shape[3])
    partitions = {OWN: members} | _controls(images, number, grid)
    found = {}
    for name, weights in partitions.items():
        labels = upsample(weights, sampling, size).argmax(1)
        for measure, (score, _) in AGREEMENT.items():
            found[f"{name}/{measure}"] = score(objects, labels)
    return found


def _controls(images: Tensor, num_clusters: int, grid: Grid) -> dict[str, Tensor]:
    """Memberships (B, M, H, W) of partitions that do not depend on the network, by name."""
    colors = (
        F.adaptive_avg_pool2d(images.float(), (grid.height, grid.width)).flatten(2).transpose(1, 2)
    )
    found = {
        f"{name} partition": CLUSTERINGS.create(
            name, dim=colors.shape[2], num_clusters=num_clusters, options={}
        )(colors, grid).membership()
        for name in ("grid", "random")
    }
    rows, columns = (torch.linspace(-1, 1, side, device=images.device) for side in grid)
    positions = torch.cartesian_prod(rows, columns).expand(len(images), -1, -1)
    labels = kmeans(torch.cat([colors, positions], 2), num_clusters, init="farthest").labels
    found["k-means of color and position"] = F.one_hot(labels, num_clusters).mT.float()
    return {name: members.unflatten(2, grid) for name, members in found.items()}


def _health(block: BlockRecord, members: Tensor, mirrored: BlockRecord) -> dict[str, Tensor]:
    assignment, _ = block.clusters()
    probabilities = members.flatten(2)
    heatmaps = F.normalize(assignment.weights.float(), dim=2)
    real = heatmaps.square().sum(2) > 0
    number = real.sum(1)
    # The squared sum holds all pairs; those of a cluster with itself, each 1, are subtracted.
    pairs = (heatmaps.sum(1).square().sum(1) - number) / (number * (number - 1)).clamp(min=1)
    flipped = maps.partition(mirrored).flip(2)
    return {
        "used": used_clusters(probabilities),
        "entropy": patch_entropy(probabilities).mean(1),
        "overlap": pairs,
        "flip": adjusted_rand_index(maps.partition(block), flipped, foreground=False),
    }


def _decreases(
    decreases: Tensor, real: Tensor, importance: Tensor, contributed: Tensor
) -> dict[str, Tensor]:
    """Decreases of the logit without a cluster, beside scores of the clusters: all (B, M)."""
    # Clusters that do not exist were not removed, nor was the only one of an image.
    removed = real & (real.sum(1, keepdim=True) > 1)
    decreases = decreases.masked_fill(~removed, torch.nan)
    return {
        "drop": decreases.nanmean(1),
        "top drop": decreases.gather(1, importance.argmax(1, keepdim=True))[:, 0],
        "rank": _rank_correlations(importance, decreases),
        "rank, contributions": _rank_correlations(contributed, decreases),
    }
