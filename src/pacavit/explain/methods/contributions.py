"""What the pixels of clusters contribute to a score, instead of what attention to them does.

The gradient at the image alone says little of a decision that is already certain. Along the way
from an image without detail to the image itself it says all: integrated gradients (Sundararajan
et al., ICML 2017) add up to the score that was gained. Here they are averaged over clusters, as
XRAI (Kapishnikov et al., ICCV 2019) averages them over segments; but the segments are those that
the network itself works with.

The maps here are one half of this, and one half attention's relevance (Chefer et al., ICCV 2021):
on CIFAR-10 the two together are truer than either.
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

    The mean over two ways to the image, from its blurred form and from its mean colour. The sum
    over the pixels approaches the logit, minus its mean at the two beginnings.

    Args:
        model: a classifier.
        images: (B, 3, H, W), normalised.
        classes: (B,) int64, whose logits.
        steps: passes for each way, at the middles of as many equal parts of it.
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
    """How much of each patch belongs to each cluster: (B, M, H, W), sums to 1 over clusters.

    Patches of no cluster have 0 everywhere.
    """
    assignment, grid = block.clusters()
    return assignment.membership().unflatten(2, grid)


def cluster_sums(values: Tensor, members: Tensor) -> Tensor:
    """The sum over the pixels of each cluster: (B, H, W) and (B, M, H, W) -> (B, M)."""
    return torch.einsum("bhw,bmhw->bm", values, members)


def averaged_over_clusters(values: Tensor, members: Sequence[Tensor]) -> Tensor:
    """Every pixel gets the mean of its clusters: (B, H, W) -> (B, H, W).

    With memberships in two partitions it is the mean of what is in the same cluster of both.

    Args:
        values: of pixels.
        members: (B, M, H, W) in one or two partitions.
    """
    first, last = (part.flatten(2) for part in (members[0], members[-1]))
    if len(members) == 1:
        last = torch.ones_like(first[:, :1])
    mass = first @ last.mT
    means = (first * values.flatten(1)[:, None]) @ last.mT / mass.clamp(min=1e-6)
    return (first * (means @ last)).sum(1).view_as(values)


class _JoinedMethod(ClusterMethod):
    """Contributions of pixels, averaged over clusters, and the relevance of attention.

    Args:
        model: a PacaViT with clusters in some stage.
        stage: over whose clusters; None is what the last two stages with clusters both put
            together.
    """

    def __init__(self, model: nn.Module, *, stage: int | None = None) -> None:
        super().__init__(model, stage=stage)
        self.stages = tuple(self.clustered[-2:]) if stage is None else (stage,)

    def _joined(self, values: Tensor, recording: Recording) -> Tensor:
        """Half of what is above 0 of the values' averages, and half of the relevance, sums to 1.

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
        return (_shares(averages) + _shares(flow)) / 2


def _shares(maps: Tensor) -> Tensor:
    """Of the sum of each map: (B, height, width); where that is 0, so are they."""
    return maps / maps.sum((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)


@METHODS.register("cluster_contributions")
class ClusterContributions(_JoinedMethod):
    """Integrated gradients averaged over clusters, and relevance, in equal shares.

    The gradients are along two ways, from a blurred and from a plain image.

    Args:
        model: a PacaViT with clusters in some stage.
        stage: over whose clusters; None is what the last two stages with clusters both put
            together.
        steps: forward and backward passes for each of the two beginnings.
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
    """The same by a single pass, at the middle of one way to the image.

    The way begins at the mean of the blurred and of the plain image, and clusters and attention
    are those of its middle, so nothing is computed twice; the price is a rougher map.

    Args:
        model: a PacaViT with clusters in some stage.
        stage: over whose clusters; None is what the last two stages with clusters both put
            together.
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
