"""The classes of an image's pixels, as the task predicts them and as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table
from torch import Tensor

from pacavit.data import DataInfo, Placement
from pacavit.utils.layout import enlarge
from pacavit.utils.text import shown

__all__ = [
    "AreaFraction",
    "ImageSegmentation",
    "Segmentation",
    "class_areas",
    "restore_logits",
]

BAR_CELLS = 20  # length of the bar of the whole area


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The class of each pixel of an image.

    Attributes:
        labels: (H, W) uint8, classes of the pixels of the original.
        cluster_labels: (H, W) uint8, the class whose cluster is highest at each pixel; None for
            heads without clusters.
        logits: (classes, height, width) fp32 of the network, whose map may be coarser.
        cluster_logits: (classes, height, width) fp32 of the clusters; None for heads without.
        placement: where the original lies in the network's input.
    """

    labels: Tensor
    cluster_labels: Tensor | None
    logits: Tensor
    cluster_logits: Tensor | None
    placement: Placement

    def probabilities(self) -> Tensor:
        """(classes, H, W): the probabilities at the pixels of the original."""
        return restore_logits(self.logits[None], self.placement)[0].softmax(0)

    def confidence(self) -> Tensor:
        """(H, W): the probability of each pixel's class."""
        return self.probabilities().amax(0)


def restore_logits(logits: Tensor, placement: Placement) -> Tensor:
    """(B, K, h, w) of the network's input -> (B, K, H, W) of the original, bilinearly.

    First to the size of the input, then to that of the original, as published.
    """
    for size in dict.fromkeys((placement.input_size, placement.image_size)):
        if tuple(logits.shape[2:]) != size:
            logits = enlarge(logits, size)
    return logits


def class_areas(labels: Tensor) -> list[tuple[int, float]]:
    """Classes (H, W) -> the classes with their fractions of the area, the largest first."""
    counts = labels.flatten().long().bincount()
    order = counts.argsort(descending=True, stable=True).tolist()
    return [(label, int(counts[label]) / labels.numel()) for label in order if counts[label]]


@dataclass(frozen=True)
class AreaFraction:
    """A class and the fraction of the image's area that it has, 0..1."""

    name: str
    area: float


@dataclass(frozen=True, eq=False)
class ImageSegmentation:
    """The prediction for one image file.

    Attributes:
        path: the image file.
        areas: classes in the image with their areas, largest first; empty if there was an error.
        labels: (H, W) uint8, classes of the pixels of the image; None if there was an error.
        info: of the data that the model was trained on.
        error: why the image could not be read, in one line; None if it could.
    """

    path: Path
    areas: tuple[AreaFraction, ...]
    labels: Tensor | None
    info: DataInfo
    error: str | None = None

    @classmethod
    def of(
        cls, path: Path, labels: Tensor | None, error: str | None, info: DataInfo
    ) -> ImageSegmentation:
        """The prediction for an image file, from the classes of its pixels (H, W)."""
        if labels is None:
            return cls(path, (), None, info, error)
        areas = [AreaFraction(info.class_names[label], area) for label, area in class_areas(labels)]
        return cls(path, tuple(areas), labels.cpu(), info)

    def to_dict(self) -> dict[str, Any]:
        """Path, classes with their fractions of the area, and error."""
        classes = [{"class": each.name, "area": round(each.area, 6)} for each in self.areas]
        return {"path": shown(self.path), "classes": classes, "error": self.error}

    def __rich__(self) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, area in ((each.name, each.area) for each in self.areas):
            bar = "█" * round(area * BAR_CELLS)
            table.add_row(f"{area:7.2%}", escape(name), f"[cyan]{bar}[/cyan]")
        return table
