"""What the clusters of each stage are worth: against objects, against each other, to the score."""

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
from pacavit.engine.diagnostics import patch_entropy, used_clusters, watched
from pacavit.explain.core import maps
from pacavit.explain.core.geometry import Sampling, samplings, upsample
from pacavit.explain.core.record import BlockRecord, record, record_until
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
from pacavit.explain.evaluation.parts import Keep, batch_key, measured_anew
from pacavit.explain.images import has_clusters
from pacavit.explain.methods.base import untouched
from pacavit.explain.methods.contributions import cluster_sums, memberships, pixel_contributions
from pacavit.types import Grid

__all__ = ["AGREEMENT", "HEALTH", "OWN", "Agreement", "StageScores", "bench_clusters"]


class Agreement(NamedTuple):
    """A measure of a partition against masks of objects.

    Attributes:
        score: masks (B, H, W) and labels (B, H, W) to (B,).
        meaning: in a few words.
    """

    score: Callable[[Tensor, Tensor], Tensor]
    meaning: str


OWN = "the model"
"""The name of the model's own partition among the controls."""

AGREEMENT: Mapping[str, Agreement] = MappingProxyType(
    {
        "FG-ARI": Agreement(
            adjusted_rand_index, "pairs of object pixels told together or apart, above chance"
        ),
        "mBO": Agreement(mean_best_overlap, "best IoU of a cluster with each object"),
        "Hungarian mIoU": Agreement(
            hungarian_miou, "the same, each object with a cluster of its own"
        ),
        "NMI": Agreement(
            normalized_mutual_information, "mutual information with objects and background"
        ),
        "purity": Agreement(purity, "share of pixels of their cluster's most frequent object"),
    }
)
"""Measures of a partition against masks of objects, higher is better."""

HEALTH: Mapping[str, str] = MappingProxyType(
    {
        "clusters": "of an image, which some methods leave to it",
        "used": "clusters of an image in which some patch counts most",
        "entropy": "of the clusters of a patch, 0 one of them, 1 all alike",
        "silhouette": "of the partition in the space of the tokens, -1 to 1",
        "overlap": "mean cosine between the heatmaps of two clusters, 0 apart, 1 the same",
        "flip": "adjusted Rand index with the partition of the mirrored image, 1 the same",
        "drop": "mean fall of the class's logit without one cluster",
        "top drop": "the same without the cluster of highest importance, attention x gradient",
        "rank": "rank correlation of importance and fall over the clusters of an image",
        "rank, contributions": "the same for what the pixels of clusters contribute",
    }
)
"""Measures of the clusters themselves."""

_NUMBER, _AGREEMENT, _HEALTH = "number", "agreement", "health"


@dataclass(frozen=True, eq=False)
class StageScores:
    """What the clusters of one stage scored.

    Attributes:
        stage: its index.
        num_clusters: M.
        agreement: by partition, the model's first, and measure: a number an image; empty where
            the objects are not known.
        health: by measure, a number an image or a batch.
    """

    stage: int
    num_clusters: int
    agreement: Mapping[str, Mapping[str, Tensor]]
    health: Mapping[str, Tensor]


def bench_clusters(
    network: nn.Module,
    batches: Iterable[Batch],
    *,
    objects: Callable[[Tensor], Tensor] | None = None,
    drops: int = 64,
    keep: Keep = measured_anew,
) -> list[StageScores]:
    """Measure the clusters of every stage that has some, those of its last block.

    Controls have as many clusters as the images of a batch have on average, on the same grid of
    patches: cells of a regular grid, a fixed random partition, and k-means on the colour and
    position of the patches. What a batch gives depends on nothing that was measured before it.

    Args:
        network: a classifier in evaluation mode, on the device of the batches.
        batches: normalised images with int64 labels.
        objects: indices (B,) of images to (B, H, W) ints, 0 the background, the subject first.
        drops: images of each batch of which clusters are left out, one by one.
        keep: may know the numbers of a batch already.

    Returns:
        One a stage with clusters; empty where no stage has any.
    """
    if not has_clusters(network):
        return []
    found = []
    for batch in batches:
        inside = None if objects is None else objects(batch.indices).to(batch.images.device).long()
        measure = partial(_measure_batch, network, batch.images, inside, drops)
        found.append(keep(f"clusters-{batch_key(batch)}", measure))
    return _stages(found)


def _stages(parts: Sequence[Mapping[str, Tensor]]) -> list[StageScores]:
    """All batches together, each a ``_measure_batch``."""
    found = []
    for stage in sorted({int(name.partition("/")[0]) for name in parts[0]}):
        number = int(parts[0][f"{stage}/{_NUMBER}"])
        agreement: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, values in _joined(parts, f"{stage}/{_AGREEMENT}/").items():
            partition, _, measure = name.partition("/")
            agreement[partition][measure] = values
        health = _joined(parts, f"{stage}/{_HEALTH}/")
        found.append(StageScores(stage, number, agreement, health))
    return found


def _joined(parts: Sequence[Mapping[str, Tensor]], prefix: str) -> dict[str, Tensor]:
    """The numbers whose names begin so, of all batches."""
    names = [name for name in parts[0] if name.startswith(prefix)]
    return {name.removeprefix(prefix): torch.cat([part[name] for part in parts]) for name in names}


def _measure_batch(
    network: nn.Module, images: Tensor, objects: Tensor | None, drops: int
) -> dict[str, Tensor]:
    """By stage/agreement/partition/measure and stage/health/measure; of each stage M too."""
    with (
        untouched(network),
        torch.enable_grad(),
        record(network) as recording,
        watched(network) as statistics,
    ):
        logits = network(images.clone().requires_grad_())
        predicted = logits.argmax(1)
        recording.backward(logits.gather(1, predicted[:, None])[:, 0])
    mirrored = record_until(network, images.flip(3), recording.clustered_stages[-1])
    few = images[:drops]
    with untouched(network), torch.enable_grad():
        contributed = pixel_contributions(network, few, predicted[:drops], steps=2)
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
        falls = cluster_drops(network, few, predicted[:drops], stage)
        sums = cluster_sums(
            contributed, upsample(members[:drops], sampling, (images.shape[2], images.shape[3]))
        )
        health = {"clusters": real.sum(1), "silhouette": torch.tensor(own, dtype=torch.float64)}
        health |= _health(block, members, mirrored.stage(stage)[-1])
        health |= _losses(falls, real[:drops], maps.importance(block)[:drops], sums)
        for name, values in health.items():
            found[f"{stage}/{_HEALTH}/{name}"] = values.double().cpu()
    return found


def _real(block: BlockRecord) -> Tensor:
    """Which clusters are there: (B, M) bool; methods that find fewer than M leave some out."""
    assignment, _ = block.clusters()
    if assignment.valid is not None:
        return assignment.valid
    return torch.ones_like(assignment.weights[:, :, 0], dtype=torch.bool)


def _agreement_of_ranks(values: Tensor, falls: Tensor) -> Tensor:
    """Spearman's correlation over the clusters whose fall is known: (B, M) twice -> (B,)."""
    known = falls.isfinite()
    return torch.cat(
        [
            rank_correlation(one[None, each], fall[None, each])
            for one, fall, each in zip(values, falls, known, strict=True)
        ]
    )


def _agree(
    members: Tensor, number: int, images: Tensor, sampling: Sampling, objects: Tensor
) -> dict[str, Tensor]:
    """By partition/measure: the model's and controls' of ``number`` clusters against masks."""
    grid, size = Grid(*members.shape[2:]), (images.shape[2], images.shape[3])
    partitions = {OWN: members} | _controls(images, number, grid)
    found = {}
    for name, shares in partitions.items():
        labels = upsample(shares, sampling, size).argmax(1)
        for measure, (score, _) in AGREEMENT.items():
            found[f"{name}/{measure}"] = score(objects, labels)
    return found


def _controls(images: Tensor, num_clusters: int, grid: Grid) -> dict[str, Tensor]:
    """Memberships (B, M, H, W) that know nothing of the network, on its patches."""
    colours = (
        F.adaptive_avg_pool2d(images.float(), (grid.height, grid.width)).flatten(2).transpose(1, 2)
    )
    found = {
        f"{name} partition": CLUSTERINGS.create(
            name, dim=colours.shape[2], num_clusters=num_clusters, options={}
        )(colours, grid).membership()
        for name in ("grid", "random")
    }
    rows, columns = (torch.linspace(-1, 1, side, device=images.device) for side in grid)
    places = torch.cartesian_prod(rows, columns).expand(len(images), -1, -1)
    labels = kmeans(torch.cat([colours, places], 2), num_clusters, init="farthest").labels
    found["k-means of colour and place"] = F.one_hot(labels, num_clusters).mT.float()
    return {name: members.unflatten(2, grid) for name, members in found.items()}


def _health(block: BlockRecord, members: Tensor, mirrored: BlockRecord) -> dict[str, Tensor]:
    assignment, _ = block.clusters()
    share = members.flatten(2)
    heat = F.normalize(assignment.weights.float(), dim=2)
    real = heat.square().sum(2) > 0
    number = real.sum(1)
    # Ones for the clusters themselves are left out of the sum over all pairs.
    pairs = (heat.sum(1).square().sum(1) - number) / (number * (number - 1)).clamp(min=1)
    flipped = maps.partition(mirrored).flip(2)
    return {
        "used": used_clusters(share),
        "entropy": patch_entropy(share).mean(1),
        "overlap": pairs,
        "flip": adjusted_rand_index(maps.partition(block), flipped, foreground=False),
    }


def _losses(
    falls: Tensor, real: Tensor, important: Tensor, contributed: Tensor
) -> dict[str, Tensor]:
    """What is lost without clusters, beside what was said of them: all (B, M)."""
    # What is not there cannot be missed, and an image's only cluster stays.
    there = real & (real.sum(1, keepdim=True) > 1)
    falls = falls.masked_fill(~there, torch.nan)
    return {
        "drop": falls.nanmean(1),
        "top drop": falls.gather(1, important.argmax(1, keepdim=True))[:, 0],
        "rank": _agreement_of_ranks(important, falls),
        "rank, contributions": _agreement_of_ranks(contributed, falls),
    }
