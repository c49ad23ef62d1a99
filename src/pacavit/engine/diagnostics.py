"""What clusterings do while a network is measured: used and empty clusters, entropy, silhouette."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import fmean
from typing import Any

import torch
from sklearn.metrics import silhouette_score
from torch import Tensor, nn

from pacavit.clustering import Clustering
from pacavit.types import Assignment

__all__ = ["PREFIX", "ClusterStatistics", "complaints", "watched"]

PREFIX = "clusters_"
_BATCHES, _SILHOUETTES = 2, 4  # batches a clustering, images of the first of them


class ClusterStatistics:
    """Means over images and clusterings, gathered by :func:`watched`."""

    def __init__(self) -> None:
        self.values: defaultdict[str, list[float]] = defaultdict(list)
        self.calls: defaultdict[nn.Module, int] = defaultdict(int)

    def means(self) -> dict[str, float]:
        """What was seen, by name; nothing if no clustering ran.

        - ``clusters_used``: clusters of an image in which some patch counts most.
        - ``clusters_empty``: clusters of an image that are not valid.
        - ``clusters_entropy``: of the clusters of a patch, 0 one of them, 1 all alike.
        - ``clusters_silhouette``: of the partition of the tokens, -1 to 1; missing if no image
          had two clusters.
        """
        return {f"{PREFIX}{name}": fmean(values) for name, values in self.values.items()}

    @torch.no_grad()
    def record(self, module: nn.Module, inputs: tuple[Any, ...], assignment: Assignment) -> None:
        """Forward hook of a clustering."""
        self.calls[module] += 1
        if self.calls[module] > _BATCHES:
            return
        share = membership(assignment)  # (B, M, N)
        real = share.sum(1) > 0  # not padding
        labels = share.argmax(1).masked_fill(~real, -1)
        number = torch.arange(share.shape[1], device=share.device)
        used = (labels[:, None] == number[:, None]).any(2).sum(1)
        empty = (
            0.0 if assignment.valid is None else (~assignment.valid).sum(1).float().mean().item()
        )
        entropy = torch.special.entr(share).sum(1)[real] / math.log(max(2, share.shape[1]))
        self.values["used"].append(used.float().mean().item())
        valid = assignment.valid
        empty = 0.0 if valid is None else (~valid).sum(1).float().mean().item()
        self.values["empty"].append(empty)
        self.values["entropy"].append(entropy.mean().item())
        if self.calls[module] == 1:
            self._record_silhouette(inputs[0], labels)

    def _record_silhouette(self, tokens: Tensor, labels: Tensor) -> None:
        for x, label in zip(tokens[:_SILHOUETTES].float(), labels[:_SILHOUETTES], strict=True):
            x, label = x[label >= 0].cpu(), label[label >= 0].cpu()
            if 1 < len(label.unique()) < len(label):
                self.values["silhouette"].append(float(silhouette_score(x, label)))


def membership(assignment: Assignment) -> Tensor:
    """How much of a patch belongs to each cluster: (B, M, N), sums 1 over M; 0 at padding."""
    scores = assignment.weights.log() + assignment.log_mass[..., None]
    return scores.softmax(1).nan_to_num(0)


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


def complaints(means: Mapping[str, float], network: nn.Module) -> list[str]:
    """What a reader should know of degenerate clusterings, a line each.

    Args:
        means: of :meth:`ClusterStatistics.means`.
        network: whose clusterings they are of.
    """
    clusterings = [module for module in network.modules() if isinstance(module, Clustering)]
    soft = bool(clusterings) and all(module.soft for module in clusterings)
    found = []
    if means.get(f"{PREFIX}used", math.inf) < 1.5:
        found.append("the clusters degenerate: most images have all their patches in one cluster")
    entropy = means.get(f"{PREFIX}entropy", 0.5)
    if soft and entropy < 0.01:
        found.append("the soft assignments degenerate: nearly every patch has one cluster only")
    if soft and entropy > 0.99:
        found.append("the soft assignments degenerate: every patch belongs to all clusters alike")
    return found
