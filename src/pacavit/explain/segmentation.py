"""Explain the predictions of a segmentation model: why a region has, or has not, a class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pacavit.data import Batch, Placement
from pacavit.data.formats.masks import LOSSY
from pacavit.data.placement import interpolation
from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import DataError
from pacavit.explain.choice import MapChoice
from pacavit.explain.explainer import EXPLAINERS, Explainer, ExplainOptions
from pacavit.explain.methods.base import METHODS, Method, method_title
from pacavit.explain.regions import (
    RegionScores,
    check_pixel,
    connected_region,
    input_region,
)
from pacavit.heads import HeadAttention
from pacavit.tasks.segmentation import Segmentation, SegmentationTask, class_areas
from pacavit.utils.layout import enlarge
from pacavit.utils.text import one_line, shown

__all__ = [
    "HeadClusters",
    "RegionExplanation",
    "SegmentationExplainer",
    "SegmentationExplanation",
    "head_clusters",
    "read_region",
]

_LEAST_AREA = 0.01  # of a class that is explained without being asked for


@dataclass(frozen=True, eq=False)
class RegionExplanation:
    """Why a region of an image has, or has not, a class.

    Attributes:
        label: index of the class.
        region: (H, W) bool, in pixels of the image.
        area: fraction of the image that the region covers.
        agreement: fraction of the region that is predicted as the class.
        probability: of the class, mean over the region.
        map: (height, width) of the network's input, high where the evidence for the class lies.
    """

    label: int
    region: Tensor
    area: float
    agreement: float
    probability: float
    map: Tensor


@dataclass(frozen=True, eq=False)
class HeadClusters:
    """The clusters of a head, of which number k is class k; cells are those of the finest map.

    Attributes:
        labels: (H, W) uint8, the class whose cluster is highest at each pixel of the image.
        agreement: fraction of the image in which these are the predicted classes.
        weights: (K, h, w), of each cell in each cluster, with sum 1 over the cells.
        probabilities: (K, h, w), softmax of the clusters' logits, with sum 1 over the clusters.
        attention: (K, h, w), of each cell to each cluster, with sum 1 over the clusters; None if
            the head does not say.
    """

    labels: Tensor
    agreement: float
    weights: Tensor
    probabilities: Tensor
    attention: Tensor | None


@dataclass(frozen=True, eq=False)
class SegmentationExplanation:
    """The explanation of the prediction for an image.

    Attributes:
        path: the image file.
        image: (3, H, W) uint8.
        placement: where the image lies in the network's input, which shows all of it.
        names: of the classes.
        colors: RGB of each class.
        labels: (H, W) uint8, the predicted class of each pixel.
        logits: (K, h, w) of the network.
        method: of the maps.
        stages: the stages whose clusters make the maps; empty for other methods.
        regions: what was asked about; by default each class with at least 1 % of the image, the
            six largest first.
        clusters: of the head; None if it has none.
        choice: the method, and what was measured about it.
    """

    path: Path
    image: Tensor
    placement: Placement
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    labels: Tensor
    logits: Tensor
    method: str
    stages: tuple[int, ...]
    regions: tuple[RegionExplanation, ...]
    clusters: HeadClusters | None
    choice: MapChoice
    kind: ClassVar[str] = "segmentation"

    def areas(self) -> list[tuple[int, float]]:
        """The classes in the image with their fractions of its area, the largest first."""
        return class_areas(self.labels)

    def probabilities_at(self, row: int, column: int) -> Tensor:
        """The probability of each class at a pixel of the image: (K,).

        Raises:
            DataError: there is no such pixel.
        """
        check_pixel((self.labels.shape[0], self.labels.shape[1]), row, column)
        rows, columns = (
            interpolation((torch.tensor([pixel]) + 0.5) * inside / outside - 0.5, inside)
            @ interpolation((torch.arange(inside) + 0.5) * cells / inside - 0.5, cells)
            for pixel, outside, inside, cells in zip(
                (row, column),
                self.placement.image_size,
                self.placement.input_size,
                self.logits.shape[1:],
                strict=True,
            )
        )
        return (rows @ self.logits @ columns.T)[:, 0, 0].softmax(0)

    def title(self) -> str:
        """The display name of the method, with its stages."""
        return method_title(self.method, self.stages)


class _Asked(NamedTuple):
    """A question: a class, and a region (H, W) bool of the image."""

    label: int
    region: Tensor


@EXPLAINERS.register("segmentation")
class SegmentationExplainer(Explainer[SegmentationExplanation]):
    """Explains regions of a segmentation by methods that explain classifiers.

    Without a region, it explains each class where it is predicted: the one asked for, or those with
    at least 1 % of the image. A region without a class is explained for the class at its pixel, or
    for the most frequent one in its mask. Models that predict windows are explained on the whole
    image in one pass.

    Args:
        model: as loaded by ``load_model``; its task moves to ``device``.
        options: what the user asks for.
        device: where to compute.

    Raises:
        UnknownNameError: there is no such method, or it has no option ``stage``.
        PacavitError: the method cannot explain this model, or the mask cannot be read.
    """

    task: SegmentationTask

    def __init__(self, model: LoadedModel, options: ExplainOptions, device: torch.device) -> None:
        assert isinstance(model.task, SegmentationTask)
        self.task = model.task
        if options.region is not None and options.mask is not None:
            raise DataError("give a region or a mask, not both")
        if options.box is not None:
            raise DataError("a box is for models that detect objects; give a region or a mask")
        self.mask = None if options.mask is None else read_region(options.mask)
        super().__init__(model, options, device)
        # A method that cannot explain the network says so before the first image.
        self._method(torch.ones(1, 1, dtype=torch.bool))

    def explain(self, image: Tensor, path: Path, batch: Batch) -> SegmentationExplanation:
        """Explain an image, of which ``batch`` is the network's input."""
        info = self.model.info
        assert info.masks is not None
        record: Segmentation = self.predictor.records(batch, [path])[0]
        labels = record.labels.cpu()
        placement = batch.placements[0]
        probabilities = enlarge(record.logits[None], placement.input_size)[0].softmax(0)
        regions: list[RegionExplanation] = []
        stages: tuple[int, ...] = ()
        for asked in self._asked(labels, path):
            inside = input_region(asked.region, placement.input_size)
            method = self._method(inside)
            classes = torch.tensor([asked.label], device=self.device)
            regions.append(
                RegionExplanation(
                    asked.label,
                    asked.region,
                    float(asked.region.float().mean()),
                    float((labels[asked.region] == asked.label).float().mean()),
                    float(probabilities[asked.label].cpu()[inside].mean()),
                    method(batch.images, classes)[0].cpu(),
                )
            )
            stages = tuple(method.stages)
        return SegmentationExplanation(
            path=path,
            image=image,
            placement=placement,
            names=info.class_names,
            colors=info.masks.colors,
            labels=labels,
            logits=record.logits.cpu(),
            method=self.choice.methods[0],
            stages=stages,
            regions=tuple(regions),
            clusters=self._clusters(record, batch),
            choice=self.choice,
        )

    def _method(self, inside: Tensor) -> Method:
        """The method for a region (height, width) bool of the network's input."""
        scores = RegionScores(self.task.model, inside[None].to(self.device))
        return METHODS.create(self.choice.methods[0], scores, options=self.options.of_map)

    def _asked(self, labels: Tensor, path: Path) -> Iterator[_Asked]:
        """The questions about an image with these predicted classes (H, W).

        Raises:
            DataError: there is no such region in the image; the message begins with the image.
        """
        label, size = self.options.label, tuple(labels.shape)
        region = None
        if self.mask is not None:
            if tuple(self.mask.shape) != size:
                raise DataError(
                    f"{shown(path)} has {size[1]} x {size[0]} pixels, and the mask has "
                    f"{self.mask.shape[1]} x {self.mask.shape[0]}; give a mask of the same size"
                )
            region = self.mask
        elif self.options.region is not None:
            column, row = self.options.region
            try:
                region = connected_region(labels, row, column)
            except DataError as error:
                raise DataError(f"{shown(path)}: {error}") from error
        if region is not None:
            most = int(labels[region].long().bincount().argmax())
            yield _Asked(most if label is None else label, region)
        elif label is not None:
            if not (labels == label).any():
                raise DataError(
                    f"{shown(path)}: no pixel is predicted as "
                    f"{self.model.info.class_names[label]!r}; name a region (--region X,Y or "
                    "--mask FILE) to ask why it is not"
                )
            yield _Asked(label, labels == label)
        else:
            for rank, (each, area) in enumerate(class_areas(labels)[: self.options.most]):
                if area >= _LEAST_AREA or not rank:
                    yield _Asked(each, labels == each)

    @torch.no_grad()
    def _clusters(self, record: Segmentation, batch: Batch) -> HeadClusters | None:
        """The clusters of the head for one image."""
        if record.cluster_labels is None or record.cluster_logits is None:
            return None
        segmenter = self.task.model
        found = segmenter.head.attention(segmenter.backbone(batch.images))
        return head_clusters(record.labels, record.cluster_labels, record.cluster_logits, found)


def head_clusters(
    labels: Tensor, cluster_labels: Tensor, cluster_logits: Tensor, found: HeadAttention | None
) -> HeadClusters:
    """The clusters of a head for one image.

    Args:
        labels: (H, W) uint8, the final class of each pixel of the image.
        cluster_labels: (H, W) uint8, the class whose cluster is highest.
        cluster_logits: (K, h, w), of the clusters; those of ``found`` are used if it is given.
        found: the attention to the clusters in a batch of one image, if the head says it.
    """
    logits = cluster_logits if found is None else found.cluster_logits[0].float()
    size, attention = logits.shape[1:], None
    if found is not None:
        attention = found.attention[0].T.unflatten(1, size).cpu()
    return HeadClusters(
        labels=cluster_labels.cpu(),
        agreement=float((cluster_labels == labels).float().mean()),
        weights=logits.flatten(1).softmax(1).view_as(logits).cpu(),
        probabilities=logits.softmax(0).cpu(),
        attention=attention,
    )


def read_region(path: Path) -> Tensor:
    """A mask from an image file: (H, W) bool, True where a value is not 0.

    Palette images are read as their indices; opacity does not count.

    Raises:
        DataError: it is no image, has lossy compression, or is 0 everywhere.
    """
    try:
        with Image.open(path) as opened:
            if opened.format in LOSSY:
                raise DataError(
                    f"the mask {shown(path)} is a {opened.format} file, whose compression changes "
                    "values near edges; save it as PNG"
                )
            values = np.array(opened)
            if opened.getbands()[-1] == "A":
                values = values[..., :-1]
    except FileNotFoundError:
        raise DataError(f"cannot read the mask {shown(path)}: there is no such file") from None
    except (OSError, ValueError, Image.DecompressionBombError, SyntaxError) as error:
        raise DataError(f"cannot read the mask {shown(path)}: {one_line(error)}") from error
    region = torch.from_numpy(values != 0)
    if region.ndim == 3:
        region = region.any(2)
    if not region.any():
        raise DataError(f"the mask {shown(path)} is 0 everywhere, so there is no region to explain")
    return region
