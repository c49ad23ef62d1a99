"""Statistics of the clusterings in a network: used and empty clusters, entropy, silhouette."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pacavit.clustering import Clustering
from pacavit.types import Assignment

__all__ = [
    "PREFIX",
    "ClusterStatistics",
    "Degeneration",
    "DegenerationReport",
    "collect_statistics",
    "patch_entropy",
    "silhouette",
    "used_clusters",
]

PREFIX = "clusters_"
_BATCHES, _SILHOUETTES = 2, 4  # batches per clustering; images per batch for the silhouette
_TOKENS = 1024  # of an image in its silhouette
_FIRST_EPOCH, _FIRST_FRACTION = 2, 0.1  # before both of them nothing is reported


class Degeneration(NamedTuple):
    """What is wrong with a clustering.

    Attributes:
        where: the stage, or the name of the module.
        what: in words.
    """

    where: str
    what: str


class DegenerationReport:
    """Decides when the degenerate clusterings of a run are reported, and what is said.

    Random initial weights, and a moving average that still contains them, assign patches almost
    uniformly or all to one cluster. So nothing is reported before a tenth of the epochs, and at
    least two, are over. Then each degeneration is reported when it is first seen, and again at the
    end of the training if it lasts.

    Args:
        epochs: of the whole run.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.first = min(epochs, max(_FIRST_EPOCH, math.ceil(_FIRST_FRACTION * epochs)))
        self._reported: set[Degeneration] = set()

    def lines(self, found: Sequence[Degeneration], epoch: int) -> list[str]:
        """Lines to print after an epoch, counted from 1."""
        last = epoch == self.epochs
        if epoch < self.first:
            return []
        new = [each for each in found if last or each not in self._reported]
        self._reported.update(new)
        return [self._line(each, epoch, last=last) for each in new]

    def _line(self, found: Degeneration, epoch: int, *, last: bool) -> str:
        if last:
            matters = "The trained network has this fault"
        else:
            matters = "It may still recover, and is reported again at the end if it does not"
        return (
            f"epoch {epoch} of {self.epochs}, {found.where}: {found.what}. Attention to clusters "
            f"and explanations by clusters are then worth little. {matters}; to mend it, change "
            "model.clustering_options (temperature of kmeans and gmm, eps of dbscan), "
            "train.cluster_lr_scale for learned clusterings, or model.clustering"
        )


class ClusterStatistics:
    """Means over images for each clustering, collected by :func:`collect_statistics`.

    Args:
        names: what messages call the clusterings.
    """

    def __init__(self, names: Mapping[Clustering, str]) -> None:
        self.names = names
        self.values: defaultdict[Clustering, defaultdict[str, list[float]]]
        self.values = defaultdict(lambda: defaultdict(list))

    def means(self) -> dict[str, float]:
        """Means over the clusterings, by name; empty if none ran.

        - ``clusters_used``: number of clusters per image that are the most probable one of a patch.
        - ``clusters_empty``: number of clusters per image that are not valid.
        - ``clusters_entropy``: normalized entropy of the membership of a patch: 0 if it belongs to
          one cluster, 1 if it belongs equally to all.
        - ``clusters_silhouette``: silhouette of the partition of the tokens, -1 to 1; missing if no
          image had two clusters.
        """
        gathered: defaultdict[str, list[float]] = defaultdict(list)
        for values in self.values.values():
            for name, numbers in values.items():
                gathered[f"{PREFIX}{name}"].append(fmean(numbers))
        return {name: fmean(numbers) for name, numbers in gathered.items()}

    def degenerate(self) -> list[Degeneration]:
        """The clusterings that no longer tell patches apart: one entry for each stage and kind."""
        found = []
        for module, values in self.values.items():
            used, entropy = fmean(values["used"]), fmean(values["entropy"])
            if module.num_clusters == 1:
                continue
            where = self.names[module]
            if module.soft and entropy > 0.99:  # tested first, because ties count as used clusters
                found.append(Degeneration(where, "every patch belongs equally to all clusters"))
            elif used < 1.5:
                one = "most images have all their patches in one cluster"
                noise = one if module.soft else f"{one}, or are nothing but noise"
                found.append(Degeneration(where, noise))
            elif module.soft and entropy < 0.01:
                what = "nearly every patch has one cluster only, though assignments are soft"
                found.append(Degeneration(where, what))
        return list(dict.fromkeys(found))

    @torch.no_grad()
    def record(self, module: Clustering, inputs: tuple[Any, ...], assignment: Assignment) -> None:
        """Forward hook of a clustering."""
        values = self.values[module]
        if len(values["used"]) == _BATCHES:
            return
        membership, labels = assignment.membership(), assignment.partition()
        real = labels >= 0  # neither padding nor noise
        valid = assignment.valid
        values["used"].append(used_clusters(membership).float().mean().item())
        values["empty"].append(0.0 if valid is None else (~valid).sum(1).float().mean().item())
        values["entropy"].append(patch_entropy(membership)[real].mean().item())
        for x, label in zip(inputs[0][:_SILHOUETTES], labels[:_SILHOUETTES], strict=True):
            found = silhouette(x.float()[label >= 0].cpu(), label[label >= 0].cpu())
            if found is not None:
                values["silhouette"].append(found)


def silhouette(x: Tensor, labels: Tensor) -> float | None:
    """The silhouette of tokens (N, C) and their clusters (N,); None where it is not defined.

    Of more than 1,024 tokens, as many are taken at even distances: the time is quadratic.
    """
    if len(labels) > _TOKENS:
        chosen = torch.linspace(0, len(labels) - 1, _TOKENS).round().long()
        x, labels = x[chosen], labels[chosen]
    if not 1 < len(labels.unique()) < len(labels) or not x.isfinite().all():
        return None
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(x, labels))


def used_clusters(membership: Tensor) -> Tensor:
    """Number of clusters that are the most probable one of a patch: (B, M, N) -> (B,) int64."""
    best = membership.argmax(1).masked_fill(membership.sum(1) == 0, -1)
    number = torch.arange(membership.shape[1], device=membership.device)
    return (best[:, None] == number[:, None]).any(2).sum(1)


def patch_entropy(membership: Tensor) -> Tensor:
    """Entropy of each patch's membership, divided by log M: (B, M, N) -> (B, N), 0 to 1."""
    return torch.special.entr(membership).sum(1) / math.log(max(2, membership.shape[1]))


@contextmanager
def collect_statistics(network: nn.Module) -> Iterator[ClusterStatistics]:
    """Collect statistics of every clustering in the network from its first few batches."""
    names = {
        module: _where(name)
        for name, module in network.named_modules()
        if isinstance(module, Clustering)
    }
    statistics = ClusterStatistics(names)
    hooks = [module.register_forward_hook(statistics.record) for module in names]
    try:
        yield statistics
    finally:
        for hook in hooks:
            hook.remove()


def _where(name: str) -> str:
    """The stage of a clustering, from the name of its module; else that name."""
    stage = re.search(r"\b(?:stages|clusterings)\.(\d+)\b", name)
    if stage is not None:
        return f"clustering of stage {stage[1]}"
    return f"clustering {name}" if name else "the clustering"
