"""Explain the predictions of a trained classifier for image files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.text import Text
from torch import Tensor, nn

from pacavit.data import Batch, ImageSet, Placement, read_image
from pacavit.data.base import DataInfo
from pacavit.engine.predictor import Predictor
from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import DataError, PacavitError, UnknownNameError
from pacavit.explain.choice import MapChoice, choose_maps
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
from pacavit.explain.methods.base import METHODS, Method, frozen_eval, holds_pacavit, method_title
from pacavit.tasks.classification import ClassProbability, top_classes
from pacavit.types import Grid
from pacavit.utils.text import shown

__all__ = [
    "FailedImage",
    "ImageExplanation",
    "StageClusters",
    "cluster_mask",
    "explain_images",
    "explain_split",
    "find_class",
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

    def restored(self, method: str) -> Tensor:
        """A map over the whole image: (H, W), NaN where it was cropped."""
        return self.placement.restore(self.maps[method])

    def title(self, method: str) -> str:
        """The display name of a map, with its stages, and whether it sums several blocks."""
        stages = self.map_stages[method]
        several = any(clusters.block for clusters in self.stages if clusters.stage in stages)
        summed = ", summed over its blocks" * (several and METHODS.get(method).sums_blocks)
        return method_title(method, stages) + summed


@dataclass(frozen=True)
class FailedImage:
    """An image that could not be explained, with the reason in one line."""

    path: Path
    error: str


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


def find_class(name: str | int, info: DataInfo) -> int:
    """The index of a class, given by its name or its index.

    Raises:
        UnknownNameError: there is no class of that name.
        DataError: the index is out of range.
    """
    names = info.class_names
    if isinstance(name, str) and name in names:
        return names.index(name)
    if isinstance(name, str) and not name.removeprefix("-").isdecimal():
        raise UnknownNameError("class", name, names, f"of {info.name}")
    index = int(name)
    if not 0 <= index < len(names):
        raise DataError(
            f"class {index} is out of range: {info.name} has the classes 0 to {len(names) - 1}"
        )
    return index


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


def explain_images(
    model: LoadedModel,
    paths: Sequence[Path],
    *,
    label: int | None = None,
    method: str | None = None,
    stage: int | None = None,
    measured: Path | None = None,
    device: torch.device,
    progress: bool = False,
) -> Iterator[ImageExplanation | FailedImage]:
    """Explain image files of any size and mode, in the order of the paths.

    A file that cannot be read becomes a :class:`FailedImage`; the others are explained.

    Args:
        model: as loaded by ``load_model``; its task moves to ``device``.
        paths: image files.
        label: index of the class to explain; None is each image's top-1 class.
        method: registered name; None is what ``choose_maps`` chooses.
        stage: whose clusters make the map; None is the last stage with clusters.
        measured: a folder of ``pacavit explain-evaluate``, see ``choose_maps``; ignored if there is
            a method.
        device: where to compute.
        progress: show a progress bar on stderr; for a single image, a status line.

    Raises:
        UnknownNameError: there is no such method, or it has no option ``stage``.
        PacavitError: the method cannot explain this model, or the model is no classifier.
    """
    network = model.classifier.to(device).model
    choice = choose_maps(model, measured) if method is None else MapChoice((method,))
    methods = _methods(network, choice, stage)
    prepare = _Preparation(model, device)
    return _explain_each(paths, label, choice, methods, prepare, progress)


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
    network = model.classifier.to(device).model
    choice = choose_maps(model) if method is None else MapChoice((method,))
    methods = {name: METHODS.create(name, network, options={}) for name in choice.methods}
    prepare = _Preparation(model, device)
    found = []
    for position in positions:
        path, image = Path(name(position)), images[position].image.cpu()
        batch = prepare(image, path)
        found.append(_explain_image(prepare.predictor, path, image, batch, None, choice, methods))
    return found


def _methods(network: nn.Module, choice: MapChoice, stage: int | None) -> dict[str, Method]:
    """The chosen methods and, for networks with clusters, the class map and the attention map.

    Only methods beside the first may lack the option ``stage``.
    """
    first, *others = choice.methods
    clusters = _OF_CLUSTERS if _shows_clusters(network) else ()
    options = {} if stage is None else {"stage": stage}
    return {
        name: METHODS.create(name, network, options={} if name in others else options)
        for name in dict.fromkeys((first, *others, *clusters))
    }


def _explain_each(
    paths: Sequence[Path],
    label: int | None,
    choice: MapChoice,
    methods: Mapping[str, Method],
    prepare: _Preparation,
    progress: bool,
) -> Iterator[ImageExplanation | FailedImage]:
    with _watched(paths, progress) as watched:
        for path in watched:
            try:
                image = read_image(path, still=True)
                batch = prepare(image, path)
            except DataError as error:
                yield FailedImage(path, str(error))
                continue
            yield _explain_image(prepare.predictor, path, image, batch, label, choice, methods)


@contextmanager
def _watched(paths: Sequence[Path], progress: bool) -> Iterator[Iterable[Path]]:
    """The paths, with a progress bar on stderr, or a status line for a single one."""
    console = Console(stderr=True)
    if not progress:
        yield paths
    elif len(paths) == 1:
        with console.status(Text(f"explaining {shown(paths[0].name)}")):
            yield paths
    else:
        with Progress(console=console) as bar:
            yield bar.track(paths, description="explaining")


def _explain_image(
    predictor: Predictor,
    path: Path,
    image: Tensor,
    batch: Batch,
    label: int | None,
    choice: MapChoice,
    methods: Mapping[str, Method],
) -> ImageExplanation:
    model = predictor.model
    names, pixels = model.info.class_names, batch.images
    probabilities: Tensor = predictor.records(batch, [path])[0].probabilities
    explained = int(probabilities.argmax()) if label is None else label
    classes = torch.tensor([explained], device=pixels.device)
    found = {name: method(pixels, classes)[0].cpu() for name, method in methods.items()}
    return ImageExplanation(
        path=path,
        image=image,
        placement=batch.placements[0],
        top=top_classes(probabilities, names, _TOP),
        explained=ClassProbability(names[explained], float(probabilities[explained])),
        maps=found,
        map_stages={name: tuple(method.stages) for name, method in methods.items()},
        stages=_clusters(model, pixels, explained) if _shows_clusters(model.task.model) else (),
        choice=choice,
    )


def _clusters(model: LoadedModel, pixels: Tensor, label: int) -> tuple[StageClusters, ...]:
    """Every stage with clusters, of one image (1, 3, height, width)."""
    network = model.task.model
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


class _Preparation:
    """From an image to the network's input and its placement in the image."""

    def __init__(self, model: LoadedModel, device: torch.device) -> None:
        self.predictor = Predictor(model, device)
        network = model.task.model
        self.patch = samplings(network)[0].stride if holds_pacavit(network) else 1

    def __call__(self, image: Tensor, path: Path) -> Batch:
        """(3, H, W) uint8 -> a batch of one; DataError if the image is too small."""
        height, width = image.shape[1:]
        if min(height, width) < self.patch:
            raise DataError(
                f"{shown(path)} has {width} x {height} pixels, less than one patch of the model "
                f"({self.patch} x {self.patch}); use a larger image"
            )
        return self.predictor.prepare([image])
