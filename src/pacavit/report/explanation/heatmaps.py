"""Heatmaps and clusters of a few images of a split, for the report of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pacavit.data import ImageSet
from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import PacavitError
from pacavit.explain import ImageExplanation, MapChoice, default_method, explain_split
from pacavit.explain.render import (
    fitted_size,
    heatmap_picture,
    partition_picture,
    thumbnail,
)
from pacavit.tasks.classification import ClassProbability
from pacavit.utils.command import Command
from pacavit.utils.pictures import base64_text, png_bytes
from pacavit.utils.text import shown

__all__ = ["Heatmap", "Heatmaps", "class_label", "make_heatmaps"]

_SIDE = 128  # pixels of the longer side of a picture


@dataclass(frozen=True)
class Heatmap:
    """The heatmap of one image; pictures are base64 of PNG files.

    Attributes:
        index: position in the split.
        label: name of the true class; names of several, separated by commas.
        guess: the top-1 class, which the map explains.
        image: the image.
        overlay: the image with the map over it.
        beside: the image with each of the other maps over it.
        partition: the image with the cluster of every patch over it; None without clusters.
        name: of the image.
    """

    index: int
    label: str
    guess: ClassProbability
    image: str
    overlay: str
    partition: str | None = None
    name: str = ""
    beside: tuple[str, ...] = ()

    @property
    def overlays(self) -> tuple[str, ...]:
        """The image with each of the maps over it."""
        return (self.overlay, *self.beside)


@dataclass(frozen=True)
class Heatmaps:
    """Heatmaps of some images.

    Attributes:
        method: registered name of the method.
        images: one per image.
        beside: registered names of the methods whose maps stand beside that of ``method``.
        note: what was measured about the maps; empty if there is nothing to say.
        command: the words of the command that measures them; empty if nothing needs to be.
        stage: stage of the clusters in the partitions; None without clusters.
        error: why the model could not be explained, in one line; None if it could.
    """

    method: str
    images: tuple[Heatmap, ...]
    stage: int | None = None
    error: str | None = None
    beside: tuple[str, ...] = ()
    note: str = ""
    command: tuple[str, ...] = ()

    @property
    def choice(self) -> MapChoice:
        """The methods, and what was measured about them."""
        command = Command(self.command) if self.command else None
        return MapChoice((self.method, *self.beside), self.note, command)


def make_heatmaps(
    model: LoadedModel,
    images: ImageSet,
    positions: Sequence[int],
    *,
    device: torch.device,
    name: Callable[[int], str] = "image {}".format,
) -> Heatmaps:
    """Explain the top-1 class of images of a split.

    A failure is returned in ``error``, so that the evaluation itself is not lost.

    Args:
        model: a classifier; its task is moved to ``device``.
        images: of the split.
        positions: of the images to explain, at least one.
        device: where to compute.
        name: of the image at a position.
    """
    try:
        explained = explain_split(model, images, positions, device=device, name=name)
    except PacavitError as error:
        return Heatmaps(default_method(model.task.model), (), error=str(error))
    names = model.info.class_names
    found = tuple(
        _heatmap(position, class_label(images.target(position), names), explanation)
        for position, explanation in zip(positions, explained, strict=True)
    )
    stages, choice = explained[0].stages, explained[0].choice
    method, *beside = choice.methods
    return Heatmaps(
        method,
        found,
        stage=stages[-1].stage if stages else None,
        beside=tuple(beside),
        note=choice.note,
        command=choice.command.argv if choice.command else (),
    )


def _heatmap(position: int, label: str, explanation: ImageExplanation) -> Heatmap:
    size = fitted_size(explanation.placement.image_size, _SIDE)
    picture, placement = thumbnail(explanation.image, size), explanation.placement.resized(size)
    overlay, *beside = (
        _base64(heatmap_picture(picture, placement.restore(explanation.maps[method])))
        for method in explanation.choice.methods
    )
    partition = None
    if explanation.stages:
        partition = _base64(partition_picture(picture, explanation.stages[-1], placement))
    return Heatmap(
        position,
        label,
        explanation.explained,
        image=_base64(picture),
        overlay=overlay,
        partition=partition,
        beside=tuple(beside),
        name=shown(explanation.path),
    )


def class_label(target: Tensor, names: Sequence[str]) -> str:
    """A label () int64, or a row of 0 and 1 (classes,), as the names of its classes."""
    if target.ndim == 0:
        return names[int(target)]
    return ", ".join(names[label] for label in target.nonzero()[:, 0].tolist()) or "none"


def _base64(picture: Tensor) -> str:
    return base64_text(png_bytes(picture))
