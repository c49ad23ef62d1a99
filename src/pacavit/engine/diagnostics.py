"""What clusterings do while a network is measured: used and empty clusters, entropy, silhouette."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from pacavit.clustering import Clustering
from pacavit.types import Assignment

__all__ = [
    "PREFIX",
    "ClusterStatistics",
    "membership",
    "patch_entropy",
    "used_clusters",
    "watched",
]

PREFIX = "clusters_"
_BATCHES, _SILHOUETTES = 2, 4  # batches a clustering, images of each of them


class ClusterStatistics:
    """Means over images of every clustering, gathered by :func:`watched`."""

    def __init__(self) -> None:
        self.values: defaultdict[Clustering, defaultdict[str, list[float]]]
        self.values = defaultdict(lambda: defaultdict(list))

    def means(self) -> dict[str, float]:
        """Means over the clusterings, by name; nothing if none ran.

        - ``clusters_used``: clusters of an image in which some patch counts most.
        - ``clusters_empty``: clusters of an image that are not valid.
        - ``clusters_entropy``: of the clusters of a patch, 0 one of them, 1 all alike.
        - ``clusters_silhouette``: of the partition of the tokens, -1 to 1; missing if no image
          had two clusters.
        """
        gathered: defaultdict[str, list[float]] = defaultdict(list)
        for values in self.values.values():
            for name, numbers in values.items():
                gathered[f"{PREFIX}{name}"].append(fmean(numbers))
        return {name: fmean(numbers) for name, numbers in gathered.items()}

    def complaints(self) -> list[str]:
        """What a reader should know of clusterings that degenerate, a line each."""
        found = []
        for module, values in self.values.items():
            used, entropy = fmean(values["used"]), fmean(values["entropy"])
            if module.num_clusters == 1:
                continue
            if module.soft and entropy > 0.99:  # first: of equal shares, one counts as most
                found.append("every patch belongs to all clusters alike")
            elif used < 1.5:
                one = "most images have all their patches in one cluster"
                found.append(one if module.soft else f"{one}, or are nothing but noise")
            elif module.soft and entropy < 0.01:
                found.append("nearly every patch has one cluster only, though assignments are soft")
        return [f"a clustering degenerates: {what}" for what in dict.fromkeys(found)]

    @torch.no_grad()
    def record(self, module: Clustering, inputs: tuple[Any, ...], assignment: Assignment) -> None:
        """Forward hook of a clustering."""
        values = self.values[module]
        if len(values["used"]) == _BATCHES:
            return
        share = membership(assignment)  # (B, M, N)
        real = share.sum(1) > 0  # not padding
        labels = share.argmax(1).masked_fill(~real, -1)
        valid = assignment.valid
        values["used"].append(used_clusters(share).float().mean().item())
        values["empty"].append(0.0 if valid is None else (~valid).sum(1).float().mean().item())
        values["entropy"].append(patch_entropy(share)[real].mean().item())
        for x, label in zip(inputs[0][:_SILHOUETTES], labels[:_SILHOUETTES], strict=True):
            found = silhouette(x.float()[label >= 0].cpu(), label[label >= 0].cpu())
            if found is not None:
                values["silhouette"].append(found)


def silhouette(x: Tensor, labels: Tensor) -> float | None:
    """Of one image's tokens (N, C) and their clusters (N,); None where it is not defined."""
    if not 1 < len(labels.unique()) < len(labels) or not x.isfinite().all():
        return None
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(x, labels))


def membership(assignment: Assignment) -> Tensor:
    """How much of a patch belongs to each cluster: (B, M, N), sums 1 over M; 0 at padding."""
    scores = assignment.weights.log() + assignment.log_mass[..., None]
    return scores.softmax(1).nan_to_num(0)


def used_clusters(share: Tensor) -> Tensor:
    """Clusters in which some patch counts most, of memberships: (B, M, N) -> (B,) int64."""
    best = share.argmax(1).masked_fill(share.sum(1) == 0, -1)
    number = torch.arange(share.shape[1], device=share.device)
    return (best[:, None] == number[:, None]).any(2).sum(1)


def patch_entropy(share: Tensor) -> Tensor:
    """Entropy of the clusters of each patch over its largest: (B, M, N) -> (B, N), 0 to 1."""
    return torch.special.entr(share).sum(1) / math.log(max(2, share.shape[1]))


@contextmanager
def watched(network: nn.Module) -> Iterator[ClusterStatistics]:
    """Gather statistics of every clustering in the network from its next few batches."""
    statistics = ClusterStatistics()
    hooks = [
        module.register_forward_hook(statistics.record)
        for module in network.modules()
        if isinstance(module, Clustering)
    ]
    try:
        yield statistics
    finally:
        for hook in hooks:
            hook.remove()
