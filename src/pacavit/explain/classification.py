"""Explain the predictions of a trained classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from pacavit.data import Batch, ImageSet, Placement
from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import PacavitError
from pacavit.explain.choice import MapChoice
from pacavit.explain.core import maps
from pacavit.explain.core.geometry import Sampling, find_pacavit, samplings, upsample
from pacavit.explain.core.masks import restored_mask
from pacavit.explain.core.record import (
    BlockRecord,
    check_weights,
    choose_stage,
    record,
    uncompiled,
)
from pacavit.explain.explainer import EXPLAINERS, Explainer, ExplainOptions
from pacavit.explain.methods.base import METHODS, Method, frozen_eval, holds_pacavit, method_title
from pacavit.tasks.classification import ClassProbability, top_classes
from pacavit.types import Grid

__all__ = [
    "ClassificationExplainer",
    "ImageExplanation",
    "StageClusters",
    "cluster_mask",
    "explain_split",
    "has_clusters",
]

_OF_CLUSTERS = ("class_map", "attention_map")
_TOP = 5
_TINY = 1e-30


@dataclass(frozen=True)
class StageClusters:
    """The clusters in the last block of a stage, for one image.

    Attributes:
        stage: its index.
        block: index of that block.
        grid: height and width in patches.
        sampling: where the patches lie in the network's input.
        weights: (M, N), valid rows sum to 1.
        partition: (N,), the cluster to which most of each patch belongs; -1 for none.
        valid: (M,) bool.
        received: (M,), the fraction of all attention that goes to the cluster.
        importance: (M,), importance of the clusters for the class: attention times gradient.
        attention: (N, M), from each patch to the clusters; rows sum to 1.
    """

    stage: int
    block: int
    grid: Grid
    sampling: Sampling
    weights: Tensor
    partition: Tensor
    valid: Tensor
    received: Tensor
    importance: Tensor
    attention: Tensor

    def ranking(self) -> list[int]:
        """The valid clusters, in descending order of their importance for the class."""
        order = self.importance.argsort(descending=True, stable=True).tolist()
        return [cluster for cluster in order if self.valid[cluster]]

    def relative_importance(self) -> Tensor:
        """Importance divided by its sum: (M,); all 0 if the sum is 0."""
        return self.importance / self.importance.sum().clamp(min=_TINY)

    def heatmap(self, cluster: int, placement: Placement) -> Tensor:
        """The heatmap of a cluster over the whole image: (H, W), NaN where it was cropped."""
        weights = self.weights[cluster].unflatten(0, self.grid)
        return placement.restore(upsample(weights, self.sampling, placement.input_size))


@dataclass(frozen=True)
class ImageExplanation:
    """The explanation of a classifier's prediction for an image.

    Attributes:
        path: the image file; for an image of a split, a name with its position.
        image: (3, H, W) uint8, the whole image.
        placement: where in the image the network's input lies.
        top: the classes with the highest probabilities, in descending order.
        explained: the class that the maps explain.
        maps: by method, (height, width) of the network's input; those of ``choice`` first. For
            image files and networks with clusters, also the class map and the attention map.
        map_stages: by method, the stages whose clusters make its map; empty for other methods.
        stages: the stages with clusters, in order; empty if the network has no clusters.
        choice: the default map, what is shown beside it, and what was measured about them.
    """

    path: Path
    image: Tensor
    placement: Placement
    top: tuple[ClassProbability, ...]
    explained: ClassProbability
    maps: Mapping[str, Tensor]
    map_stages: Mapping[str, tuple[int, ...]]
    stages: tuple[StageClusters, ...]
    choice: MapChoice
    kind: ClassVar[str] = "classification"

    def restored(self, method: str) -> Tensor:
        """A map over the whole image: (H, W), NaN where it was cropped."""
        return self.placement.restore(self.maps[method])

    def title(self, method: str) -> str:
        """The display name of a map, with its stages, and whether it sums several blocks."""
        stages = self.map_stages[method]
        several = any(clusters.block for clusters in self.stages if clusters.stage in stages)
        summed = ", summed over its blocks" * (several and METHODS.get(method).sums_blocks)
        return method_title(method, stages) + summed


def cluster_mask(
    explanation: ImageExplanation,
    stage: int | None = None,
    cluster: int | None = None,
    *,
    threshold: str = "otsu",
    value: float | None = None,
) -> Tensor:
    """The area of the whole image in which a cluster is high: (H, W) bool.

    Args:
        explanation: of the image.
        stage: with clusters; None is the last.
        cluster: its index; None is the most important one for the explained class.
        threshold: name of a threshold, see ``restored_mask``.
        value: its parameter, see ``restored_mask``.

    Raises:
        PacavitError: there is no such stage or cluster, or the threshold is wrong.
    """
    stages = {one.stage: one for one in explanation.stages}
    clusters = stages[choose_stage(list(stages), stage)]
    ranking = clusters.ranking()
    if cluster is None:
        cluster = ranking[0]
    if cluster not in ranking:
        raise PacavitError(
            f"stage {clusters.stage} has no cluster {cluster} in this image; choose among: "
            f"{', '.join(map(str, sorted(ranking)))}"
        )
    placement = explanation.placement
    return restored_mask(clusters.heatmap(cluster, placement), placement, threshold, value)


def has_clusters(network: nn.Module) -> bool:
    """Whether a network is, or contains, one of this package with clusters in some stage."""
    return holds_pacavit(network) and any(m.num_clusters for m in find_pacavit(network).mixers)


def _shows_clusters(network: nn.Module) -> bool:
    """Whether the attention that clusters receive can be shown."""
    if not has_clusters(network):
        return False
    try:
        check_weights(uncompiled(network))
    except PacavitError:
        return False
    return True


def explain_split(
    model: LoadedModel,
    images: ImageSet,
    positions: Sequence[int],
    *,
    method: str | None = None,
    device: torch.device,
    name: Callable[[int], str] = "image {}".format,
) -> list[ImageExplanation]:
    """Explain images of a split, each with its top-1 class.

    Args:
        model: as loaded by ``load_model``; its task moves to ``device``.
        images: the split.
        positions: in it.
        method: registered name; None is what ``choose_maps`` chooses.
        device: where to compute.
        name: of the image at a position, which becomes the path of its explanation.

    Raises:
        UnknownNameError: there is no such method.
        PacavitError: the method cannot explain this model, the model is no classifier, or an image
            cannot be read.
    """
    explainer = ClassificationExplainer(
        model, ExplainOptions(method=method), device, beside_clusters=False
    )
    return [explainer(images[position].image.cpu(), Path(name(position))) for position in positions]


@EXPLAINERS.register("classification")
class ClassificationExplainer(Explainer[ImageExplanation]):
    """Explains the predictions of a model that classifies images, also into several classes.

    Args:
        model: as loaded by ``load_model``; its task moves to ``device``.
        options: what the user asks for.
        device: where to compute.
        beside_clusters: for networks with clusters, also show the class map and the attention map.

    Raises:
        UnknownNameError: there is no such method, or it has no option ``stage``.
        PacavitError: the method cannot explain this model, the model is no classifier, or a region
            is asked for.
    """

    def __init__(
        self,
        model: LoadedModel,
        options: ExplainOptions,
        device: torch.device,
        *,
        beside_clusters: bool = True,
    ) -> None:
        self.network = model.classifier.to(device).model
        if (options.region, options.mask, options.box) != (None, None, None):
            raise PacavitError(
                "a region, a mask or a box is for models that segment or detect, and this one "
                "classifies whole images; leave it out"
            )
        super().__init__(model, options, device)
        self.shows_clusters = _shows_clusters(self.network)
        # Only methods beside the first may lack the options.
        first, *others = self.choice.methods
        beside = _OF_CLUSTERS if self.shows_clusters and beside_clusters else ()
        self.methods: dict[str, Method] = {
            name: METHODS.create(
                name, self.network, options={} if name in others else options.of_map
            )
            for name in dict.fromkeys((first, *others, *beside))
        }

    def explain(self, image: Tensor, path: Path, batch: Batch) -> ImageExplanation:
        """Explain an image, of which ``batch`` is the network's input."""
        names, pixels, label = self.model.info.class_names, batch.images, self.options.label
        probabilities: Tensor = self.predictor.records(batch, [path])[0].probabilities
        explained = int(probabilities.argmax()) if label is None else label
        classes = torch.tensor([explained], device=pixels.device)
        return ImageExplanation(
            path=path,
            image=image,
            placement=batch.placements[0],
            top=top_classes(probabilities, names, _TOP),
            explained=ClassProbability(names[explained], float(probabilities[explained])),
            maps={name: method(pixels, classes)[0].cpu() for name, method in self.methods.items()},
            map_stages={name: tuple(method.stages) for name, method in self.methods.items()},
            stages=_clusters(self.network, pixels, explained) if self.shows_clusters else (),
            choice=self.choice,
        )


def _clusters(network: nn.Module, pixels: Tensor, label: int) -> tuple[StageClusters, ...]:
    """Every stage with clusters, of one image (1, 3, height, width)."""
    with frozen_eval(network), torch.enable_grad(), record(network) as recording:
        recording.backward(network(pixels.detach().clone().requires_grad_())[:, label])
    where = samplings(network)
    return tuple(
        _stage_clusters(stage, recording.stage(stage)[-1], where[stage])
        for stage in recording.clustered_stages
    )


def _stage_clusters(stage: int, block: BlockRecord, sampling: Sampling) -> StageClusters:
    assignment, grid = block.clusters()
    weights = assignment.weights[0].float().cpu()
    valid = assignment.valid
    return StageClusters(
        stage=stage,
        block=block.block,
        grid=grid,
        sampling=sampling,
        weights=weights,
        partition=maps.partition(block)[0].flatten().cpu(),
        valid=torch.ones(len(weights), dtype=torch.bool) if valid is None else valid[0].cpu(),
        received=maps.received(block)[0].cpu(),
        importance=maps.importance(block)[0].cpu(),
        attention=maps.patch_attention(block)[0].cpu(),
    )
