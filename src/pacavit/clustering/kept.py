"""From any number of clusters to at most M of them."""

from __future__ import annotations

import torch
from torch import Tensor

from pacavit.clustering.functional._points import relative_distances, wide
from pacavit.utils.exporting import stable_argsort

__all__ = ["OUTLIERS", "keep_largest"]

OUTLIERS = ("cluster", "nearest")


def keep_largest(
    labels: Tensor, num_clusters: int, x: Tensor, mask: Tensor, outliers: str
) -> Tensor:
    """Keep the largest clusters and assign the other patches, the outliers: (B, N) -> (B, N).

    Args:
        labels: (B, N) int64, any number of clusters from 0; -1 is noise or padding. Of clusters
            with equal size, the one with the lower number ranks first.
        num_clusters: M.
        x: (B, N, C) patches.
        mask: (B, N) bool, False at padding.
        outliers: "cluster": they form one cluster; if that would make more than M, the M-th largest
            joins it. "nearest": each joins the kept cluster with the nearest mean. In an image
            without clusters, all patches form one.

    Returns:
        Clusters 0..M-1, the largest first; -1 at padding.
    """
    points = labels.shape[1]
    number = torch.arange(points, device=labels.device)
    members = labels[:, None] == number[:, None]
    order = stable_argsort(members.sum(2), descending=True)
    rank = torch.empty_like(order).scatter_(1, order, number.expand_as(order))
    ranked = rank.gather(1, labels.clamp(min=0)).where(labels >= 0, points + num_clusters)
    if outliers == "cluster":
        found = (labels.amax(1, keepdim=True) + 1).clamp(min=0)
        noise = ((labels < 0) & mask).any(1, keepdim=True)
        crowded = (found > num_clusters) | (noise & (found == num_clusters))
        kept = torch.where(crowded, num_clusters - 1, found)
        return ranked.minimum(kept).masked_fill(~mask, -1)
    x = wide(x)
    clusters = torch.arange(num_clusters, device=labels.device)
    kept = (ranked[:, None] == clusters[:, None]).to(x)
    size = kept.sum(2)
    means = kept @ x / size.clamp(min=1)[..., None]
    far = relative_distances(x, means).masked_fill((size == 0)[:, None], torch.inf)
    nearest = far.argmin(2)  # 0 where no cluster was found
    return ranked.where(ranked < num_clusters, nearest).masked_fill(~mask, -1)
