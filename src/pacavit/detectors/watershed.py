"""Instances without boxes: interior, border and background of objects, and a watershed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pacavit.detectors.base import DETECTORS, Detected, Detector, Target
from pacavit.errors import RecipeError
from pacavit.heads import HEADS
from pacavit.models import Pyramid
from pacavit.utils.layout import enlarge

__all__ = ["BACKGROUND", "BORDER", "INTERIOR", "Watershed", "pixel_classes"]

BACKGROUND, BORDER, INTERIOR = 0, 1, 2
"""Classes of pixels; the interior of an object of class k is ``INTERIOR + k``."""
_IGNORED = -1  # label of padding
_HIGHEST = 20_000  # height of the relief in the foreground


@DETECTORS.register("watershed")
class Watershed(Detector):
    """A segmentation head finds the interiors of objects, and a watershed completes them.

    The head has a class for the background, one for the borders of objects, and one for the
    interiors of the objects of each class. With the PaCa head each of them is a cluster, so the
    clusters are supervised. Connected interiors are the markers of a watershed (Beucher & Meyer,
    1993) that grows them over the foreground, the pixels that are not background. There are no
    boxes, no non-maximum suppression, and no limit on the number of objects; but objects cannot
    overlap. Interior, border and background as classes: Caicedo et al., "Evaluation of deep
    learning strategies for nucleus segmentation in fluorescence images", Cytometry A, 2019.

    The score of an object is the mean certainty of the clusters (of the final classes for heads
    without clusters) that its pixels are foreground, times the mean certainty of its interior.

    Args:
        backbone: maps of several resolutions.
        num_classes: K.
        head: segmentation head, see `pacavit list heads`.
        head_options: keyword arguments of its class.
        border: pixels of the input inside an object, from its outline on, that are its border.
        border_weight: of border pixels in the losses; 1 for all others.
        marker: probability of the interior from which on pixels are markers.
        foreground: probability of interior and border from which on pixels are of an object.
        min_area: objects with fewer pixels of the input are left out.
        max_detections: objects with the highest scores to keep; None: all.

    Raises:
        RecipeError: an option is out of range.
    """

    has_masks: ClassVar[bool] = True

    def __init__(
        self,
        backbone: Pyramid,
        num_classes: int,
        head: str = "paca",
        head_options: Mapping[str, Any] | None = None,
        border: int = 1,
        border_weight: float = 2.0,
        marker: float = 0.5,
        foreground: float = 0.5,
        min_area: int = 9,
        max_detections: int | None = None,
    ) -> None:
        super().__init__(backbone, num_classes)
        if border < 1 or min_area < 1 or border_weight <= 0:
            raise RecipeError(
                "detector 'watershed' needs border and min_area of at least 1, and border_weight "
                f"above 0, not {border}, {min_area} and {border_weight}"
            )
        if not (0 < marker < 1 and 0 < foreground < 1):
            raise RecipeError(
                "marker and foreground of detector 'watershed' are probabilities between 0 and 1, "
                f"not {marker} and {foreground}"
            )
        self.head = HEADS.create(
            head,
            backbone.channels,
            backbone.strides,
            num_classes + INTERIOR,
            options=dict(head_options or {}),
        )
        self.border, self.border_weight = border, border_weight
        self.marker, self.foreground = marker, foreground
        self.min_area, self.max_detections = min_area, max_detections

    @property
    def loss_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Of the pixels, then of what the head supervises."""
        return ("pixels", *self.head.loss_weights)

    def losses(
        self, images: Tensor, targets: Sequence[Target], sizes: Sequence[tuple[int, int]]
    ) -> dict[str, Tensor]:
        """Cross-entropies of the pixels, of the answer and of what the head supervises."""
        height, width = images.shape[2:]
        labels = torch.full(
            (len(images), height, width), _IGNORED, dtype=torch.int64, device=images.device
        )
        for row, target, (rows, columns) in zip(labels, targets, sizes, strict=True):
            row[:rows, :columns] = self._labels(target, (height, width))[:rows, :columns]
        output = self.head(self.backbone(images))
        losses = {"pixels": self._loss(output.logits, labels)}
        for name, logits in output.supervised.items():
            losses[name] = self.head.loss_weights[name] * self._loss(logits, labels)
        return losses

    def _labels(self, target: Target, size: tuple[int, int]) -> Tensor:
        if target.masks is None:
            raise ValueError("detector 'watershed' learns from masks, and the targets have none")
        instances = instance_map(target.masks, size)
        return pixel_classes(instances, target.labels, border=self.border)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over the images of the mean over their pixels, weighted."""
        by_pixel = F.cross_entropy(
            enlarge(logits.float(), labels.shape[1:]),
            labels,
            ignore_index=_IGNORED,
            reduction="none",
        )
        weights = torch.where(labels == BORDER, self.border_weight, 1.0)
        weights = weights.masked_fill(labels == _IGNORED, 0)
        return ((by_pixel * weights).sum((1, 2)) / weights.sum((1, 2)).clamp_min(1)).mean()

    def forward(self, images: Tensor) -> list[Detected]:
        """(B, 3, height, width) -> the objects of each image, without gradients."""
        size = images.shape[2:]
        with torch.no_grad():
            output = self.head(self.backbone(images))
            name = self.head.cluster_logits
            certain = output.logits if name is None else output.supervised[name]
            final, clusters = (
                enlarge(logits.float(), size).softmax(1) for logits in (output.logits, certain)
            )
        return [self._detected(*each) for each in zip(final, clusters, strict=True)]

    def _detected(self, probabilities: Tensor, clusters: Tensor) -> Detected:
        """The objects of an image, from (K + 2, height, width) probabilities."""
        instances = self._grow(probabilities)
        found = _measure(instances, probabilities, clusters)
        keep = found.areas >= self.min_area
        order = torch.where(keep, found.scores, -1.0).argsort(descending=True, stable=True)
        order = order[: int(keep.sum())][: self.max_detections]
        number = torch.zeros(len(found.areas) + 1, dtype=torch.int64, device=instances.device)
        number[order + 1] = torch.arange(1, len(order) + 1, device=instances.device)
        return Detected(
            found.boxes[order],
            found.labels[order],
            found.scores[order],
            instances=number[instances],
        )

    def _grow(self, probabilities: Tensor) -> Tensor:
        """(K + 2, height, width) probabilities -> (height, width) int64 objects from 1, 0: none."""
        # SciPy is needed for this detector only.
        from scipy import ndimage

        interior = probabilities[INTERIOR:].sum(0)
        inside = (1 - probabilities[BACKGROUND] >= self.foreground).cpu().numpy()
        seeds = (interior >= self.marker).cpu().numpy() & inside
        markers, number = ndimage.label(seeds)
        # The marker of the background, which is negative, covers all of it.
        markers[~inside] = -1
        relief, neighbors = _relief(interior, inside), np.ones((3, 3), np.int8)
        grown: NDArray[np.int32] = ndimage.watershed_ift(relief, markers, structure=neighbors)
        grown[grown < 0] = 0
        assert grown.max(initial=0) <= number
        return torch.from_numpy(grown).to(probabilities.device, torch.int64)

    def class_logits(self, maps: Sequence[Tensor], size: tuple[int, int], boxes: Tensor) -> Tensor:
        """The mean over a box of each class's interior minus that of the background: (B, K) fp32.

        They are means of the logits of pixels.
        """
        logits = enlarge(self.head(maps).logits.float(), size)
        inside = _inside(boxes, logits[:, BACKGROUND])
        means = torch.einsum("bkhw,bhw->bk", logits, inside)
        return means[:, INTERIOR:] - means[:, BACKGROUND, None]

    def classifiers(self) -> Sequence[torch.nn.Module]:
        """Those of the head."""
        return self.head.classifiers()


class _Measured(NamedTuple):
    """Facts of the objects of an instance map, (num,) each and boxes (num, 4)."""

    areas: Tensor
    boxes: Tensor
    labels: Tensor
    scores: Tensor


def instance_map(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks of objects -> the object that each pixel shows.

    Where masks overlap, the smaller object is shown, because it is likely in front.

    Args:
        masks: (num, height, width) bool.
        size: (height, width), at least that of the masks.

    Returns:
        ``size`` int64: k + 1 for object k, 0 for none.
    """
    shown = torch.zeros(size, dtype=torch.int64, device=masks.device)
    height, width = masks.shape[1:]
    part = shown[:height, :width]
    for number in masks.flatten(1).sum(1).argsort(descending=True, stable=True).tolist():
        part.masked_fill_(masks[number], number + 1)
    return shown


def pixel_classes(instances: Tensor, labels: Tensor, *, border: int) -> Tensor:
    """The class of each pixel, from which a head learns to tell objects apart.

    An object so thin that all of it is border keeps the pixels farthest from its outline.

    Args:
        instances: (H, W) int64: k + 1 for object k, 0 for none.
        labels: (num,) int64, classes of the objects.
        border: pixels inside an object, from its outline on, that are its border.

    Returns:
        (H, W) int64: ``BACKGROUND``, ``BORDER``, or ``INTERIOR`` plus the object's class.
    """
    lookup = torch.cat([labels.new_zeros(1), labels + INTERIOR])
    inside = instances > 0
    classes = lookup[instances]
    depth = torch.zeros_like(instances)
    for reach in range(1, border + 1):
        low, high = _extremes(instances, reach)
        depth += (inside & (low == high)).long()
    # (num + 1,): the depth of each object's innermost pixels.
    deepest = depth.new_zeros(len(lookup)).scatter_reduce(
        0, instances.flatten(), depth.flatten(), "amax"
    )
    is_border = inside & (depth < deepest[instances].clamp(max=border))
    return classes.masked_fill(is_border, BORDER)


def _extremes(values: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Least and largest of (H, W) integers in squares of 2 reach + 1 pixels, inside the image."""
    side = 2 * reach + 1
    x = values.float()[None, None]  # numbers of objects are exact
    high = F.max_pool2d(x, side, stride=1, padding=reach)
    low = -F.max_pool2d(-x, side, stride=1, padding=reach)
    return low[0, 0].long(), high[0, 0].long()


def _relief(interior: Tensor, inside: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """(H, W) probabilities of the interior -> heights, with valleys inside of objects.

    The step from the background to the foreground is higher than any within the foreground, so
    that pixels of objects are reached by the markers of objects first.
    """
    heights = ((1 - interior) * _HIGHEST).round().clamp(0, _HIGHEST).cpu().numpy()
    return np.where(inside, heights, 3 * _HIGHEST).astype(np.uint16)


def _measure(instances: Tensor, probabilities: Tensor, clusters: Tensor) -> _Measured:
    """Areas, boxes, classes and scores of the objects (H, W) of an image."""
    num = int(instances.max()) if instances.numel() else 0
    flat = instances.flatten()

    def sums(values: Tensor) -> Tensor:
        """(C, H, W) -> (C, num), the sums over the pixels of each object."""
        zeros = values.new_zeros(len(values), num + 1)
        return zeros.index_add(1, flat, values.flatten(1))[:, 1:]

    areas = flat.bincount(minlength=num + 1)[1:]
    by_class = sums(probabilities[INTERIOR:])
    labels = by_class.argmax(0)
    total = areas.clamp_min(1)
    foreground = sums(1 - clusters[BACKGROUND][None])[0] / total
    interior = sums(clusters[INTERIOR:]).gather(0, labels[None])[0] / total
    return _Measured(areas, _boxes(instances, num), labels, foreground * interior)


def _boxes(instances: Tensor, num: int) -> Tensor:
    """(H, W) objects from 1 to num -> boxes (num, 4) around their pixels."""
    height, width = instances.shape
    rows = torch.arange(height, device=instances.device)[:, None].expand(height, width).flatten()
    columns = torch.arange(width, device=instances.device).repeat(height)
    flat = instances.flatten()

    def extreme(values: Tensor, how: str, start: int) -> Tensor:
        begin = torch.full((num + 1,), start, device=values.device)
        return begin.scatter_reduce(0, flat, values, how)[1:]

    left, top = extreme(columns, "amin", width), extreme(rows, "amin", height)
    right, bottom = extreme(columns, "amax", -1) + 1, extreme(rows, "amax", -1) + 1
    return torch.stack([left, top, right, bottom], 1).float()


def _inside(boxes: Tensor, like: Tensor) -> Tensor:
    """(B, 4) boxes -> (B, H, W) weights, equal in the pixels of each box, with sum 1."""
    height, width = like.shape[1:]
    x, y = (torch.arange(side, device=like.device) + 0.5 for side in (width, height))
    columns = (x >= boxes[:, :1]) & (x <= boxes[:, 2:3])
    rows = (y >= boxes[:, 1:2]) & (y <= boxes[:, 3:])
    weights = (rows[:, :, None] & columns[:, None, :]).to(like)
    return weights / weights.sum((1, 2), keepdim=True).clamp_min(1)
