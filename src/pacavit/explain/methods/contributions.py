"""Contributions of pixels to a score, averaged over the clusters of the network.

The gradient at the image is almost 0 for a confident prediction. Integrated gradients
(Sundararajan et al., ICML 2017) average gradients along a path from an image without detail to the
image itself; their sum is the increase of the score. XRAI (Kapishnikov et al., ICCV 2019) averages
them over segments. Here they are averaged over the clusters of the network.

Maps are one half these averages and one half the relevance of attention (Chefer et al., ICCV
2021): on CIFAR-10 the combination is more faithful than either.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pacavit.errors import PacavitError
from pacavit.explain.core.geometry import samplings, upsample
from pacavit.explain.core.record import BlockRecord, Recording, record
from pacavit.explain.core.rollout import relevance
from pacavit.explain.evaluation.metrics.faithfulness import BASELINES
from pacavit.explain.methods.base import METHODS, ClusterMethod, class_scores

__all__ = [
    "ClusterContributions",
    "ClusterGradient",
    "averaged_over_clusters",
    "cluster_sums",
    "memberships",
    "pixel_contributions",
]


def pixel_contributions(model: nn.Module, images: Tensor, classes: Tensor, steps: int) -> Tensor:
    """Integrated gradients of logits: (B, 3, H, W) and (B,) -> (B, H, W), of either sign.

    The mean over two paths to the image, from its blurred version and from its mean color. The sum
    over the pixels approaches the logit minus the mean of the logits at the two starts.

    Args:
        model: a classifier.
        images: (B, 3, H, W), normalized.
        classes: (B,) int64, whose logits.
        steps: number of passes for each path, at the midpoints of equal sections.
    """
    found = torch.zeros_like(images[:, 0])
    for baseline in BASELINES.values():
        start = baseline(images)
        way = (images - start).detach()
        for step in range(steps):
            point = (start + (step + 0.5) / steps * way).detach().requires_grad_()
            score = class_scores(model, point, classes).sum()
            (gradient,) = torch.autograd.grad(score, point)
            found += (gradient * way).sum(1)
    return found / (steps * len(BASELINES))


def memberships(block: BlockRecord) -> Tensor:
    """The fraction of each patch in each cluster: (B, M, H, W), sums to 1 over clusters.

    Patches in no cluster have 0 in all of them.
    """
    assignment, grid = block.clusters()
    return assignment.membership().unflatten(2, grid)


def cluster_sums(values: Tensor, members: Tensor) -> Tensor:
    """The sum over the pixels of each cluster: (B, H, W) and (B, M, H, W) -> (B, M)."""
    return torch.einsum("bhw,bmhw->bm", values, members)


def averaged_over_clusters(values: Tensor, members: Sequence[Tensor]) -> Tensor:
    """Replace every pixel by the mean over its clusters: (B, H, W) -> (B, H, W).

    With memberships in two partitions, the mean is over pixels in the same cluster of both.

    Args:
        values: (B, H, W), of pixels.
        members: memberships (B, M, H, W) in one or two partitions.
    """
    first, last = (partition.flatten(2) for partition in (members[0], members[-1]))
    if len(members) == 1:
        last = torch.ones_like(first[:, :1])
    mass = first @ last.mT
    means = (first * values.flatten(1)[:, None]) @ last.mT / mass.clamp(min=1e-6)
    return (first * (means @ last)).sum(1).view_as(values)


class _JoinedMethod(ClusterMethod):
    """Contributions of pixels, averaged over clusters, and the relevance of attention.

    Args:
        model: a PacaViT with clusters in some stage.
        stage: over whose clusters; None is the intersections of the clusters of the last two
            stages with clusters.
    """

    def __init__(self, model: nn.Module, *, stage: int | None = None) -> None:
        super().__init__(model, stage=stage)
        self.stages = tuple(self.clustered[-2:]) if stage is None else (stage,)

    def _joined(self, values: Tensor, recording: Recording) -> Tensor:
        """Half of the positive averages and half of the relevance; sums to 1.

        Args:
            values: (B, height, width), contributions of either sign.
            recording: of a pass that was differentiated.
        """
        where, size = samplings(self.model), (values.shape[1], values.shape[2])
        members = [
            upsample(memberships(recording.stage(stage)[-1]), where[stage], size)
            for stage in self.stages
        ]
        averages = averaged_over_clusters(values, members).clamp(min=0)
        flow = upsample(relevance(recording, self.model), where[0], size)
        return (_normalized(averages) + _normalized(flow)) / 2


def _normalized(maps: Tensor) -> Tensor:
    """Maps divided by their sums: (B, height, width); maps whose sum is 0 stay 0."""
    return maps / maps.sum((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)


@METHODS.register("cluster_contributions")
class ClusterContributions(_JoinedMethod):
    """Integrated gradients averaged over clusters, and relevance, half of each.

    Gradients are integrated along two paths: from the blurred image, and from its mean color.

    Args:
        model: a PacaViT with clusters in some stage.
        stage: over whose clusters; None is the intersections of the clusters of the last two
            stages with clusters.
        steps: forward and backward passes for each of the two starts.
    """

    def __init__(self, model: nn.Module, *, stage: int | None = None, steps: int = 2) -> None:
        super().__init__(model, stage=stage)
        if steps < 1:
            raise PacavitError(f"steps must be 1 or more, not {steps}")
        self.steps = steps

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """(B, 3, height, width) and (B,) -> (B, height, width)."""
        with record(self.model) as recording:
            recording.backward(class_scores(self.model, images, classes))
        contributions = pixel_contributions(self.model, images, classes, self.steps)
        return self._joined(contributions, recording)


@METHODS.register("cluster_gradient")
class ClusterGradient(_JoinedMethod):
    """Gradient contributions averaged over clusters, and relevance, by a single pass.

    Gradient, clusters and attention are those at the midpoint between the image and the mean of its
    blurred version and its mean color. It is faster and less exact than ``cluster_contributions``.

    Args:
        model: a PacaViT with clusters in some stage.
        stage: over whose clusters; None is the intersections of the clusters of the last two
            stages with clusters.
    """

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """(B, 3, height, width) and (B,) -> (B, height, width)."""
        images = images.detach()
        start = torch.stack([baseline(images) for baseline in BASELINES.values()]).mean(0)
        middle = ((start + images) / 2).requires_grad_()
        with record(self.model) as recording:
            score = class_scores(self.model, middle, classes).sum()
            (gradient,) = torch.autograd.grad(score, middle)
        return self._joined((gradient * (images - start)).sum(1), recording)
