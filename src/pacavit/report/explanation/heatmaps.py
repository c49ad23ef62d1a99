"""Heatmaps of a few images: where a classifier finds its answer, and what its clusters hold."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pacavit.data import ImageSet
from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import PacavitError
from pacavit.explain import ImageExplanation, default_method, explain_split
from pacavit.explain.render import (
    fitted_size,
    heat_picture,
    partition_picture,
    png_bytes,
    thumbnail,
)
from pacavit.tasks.classification import ClassProbability

__all__ = ["Heatmap", "Heatmaps", "make_heatmaps"]

_SIDE = 128  # pixels of the longer side of a picture


@dataclass(frozen=True)
class Heatmap:
    """One image and what a classifier sees in it; pictures are base64 of PNG files.

    Attributes:
        index: position in the split.
        label: name of the true class.
        guess: the likeliest class, the one that the map explains.
        image: the image alone.
        overlay: the map over it.
        partition: the cluster of every patch over it; None without clusters.
    """

    index: int
    label: str
    guess: ClassProbability
    image: str
    overlay: str
    partition: str | None = None


@dataclass(frozen=True)
class Heatmaps:
    """Maps of some images by one method.

    Attributes:
        method: its registered name.
        images: what was explained.
        stage: whose clusters the partitions show; None if there are none.
        error: why no image could be explained, in one line; None if they could.
    """

    method: str
    images: tuple[Heatmap, ...]
    stage: int | None = None
    error: str | None = None


def make_heatmaps(
    model: LoadedModel, images: ImageSet, positions: Sequence[int], *, device: torch.device
) -> Heatmaps:
    """Explain images of a split, each with its likeliest class.

    If that fails the result says why: an evaluation must not be lost for want of its pictures.

    Args:
        model: a classifier; its task moves to ``device``.
        images: of the split.
        positions: of at least one image.
        device: where to compute.
    """
    method = default_method(model.task.model)
    try:
        explained = explain_split(model, images, positions, method=method, device=device)
    except PacavitError as error:
        return Heatmaps(method, (), error=str(error))
    names = model.info.class_names
    found = tuple(
        _heatmap(position, _in_words(images.target(position), names), method, explanation)
        for position, explanation in zip(positions, explained, strict=True)
    )
    stages = explained[0].stages
    return Heatmaps(method, found, stage=stages[-1].stage if stages else None)


def _heatmap(position: int, label: str, method: str, explanation: ImageExplanation) -> Heatmap:
    size = fitted_size(explanation.placement.image_size, _SIDE)
    picture, placement = thumbnail(explanation.image, size), explanation.placement.resized(size)
    heat = placement.restore(explanation.maps[method])
    partition = None
    if explanation.stages:
        partition = _base64(partition_picture(picture, explanation.stages[-1], placement))
    return Heatmap(
        position,
        label,
        explanation.explained,
        image=_base64(picture),
        overlay=_base64(heat_picture(picture, heat)),
        partition=partition,
    )


def _in_words(target: Tensor, names: Sequence[str]) -> str:
    """A label () int64, or a row of 0 and 1 (classes,), as the names of its classes."""
    if target.ndim == 0:
        return names[int(target)]
    return ", ".join(names[label] for label in target.nonzero()[:, 0].tolist()) or "none"


def _base64(picture: Tensor) -> str:
    return b64encode(png_bytes(picture)).decode()
