"""The objects in an image, as the tasks predict them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from pacavit.data import DataInfo, Rle
from pacavit.utils.text import shown

__all__ = ["MIN_SCORE", "Detections", "FoundObject", "ImageDetections", "coco_boxes"]

MIN_SCORE = 0.5
"""Least score of the objects that are printed and drawn, unless a user gives another."""

_MOST_ROWS = 20


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in an image, in falling order of their scores.

    Attributes:
        boxes: (num, 4) fp32 on the CPU, x1 y1 x2 y2 in pixels of the original, inside it.
        labels: (num,) int64, classes.
        scores: (num,) fp32 in 0..1.
        size: (height, width) of the original.
        masks: one per object, of the original's size; None for detectors of boxes.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    size: tuple[int, int]
    masks: tuple[Rle, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def above(self, score: float) -> Detections:
        """Those with at least a score."""
        number = int(torch.count_nonzero(self.scores >= score))
        return replace(
            self,
            boxes=self.boxes[:number],
            labels=self.labels[:number],
            scores=self.scores[:number],
            masks=None if self.masks is None else self.masks[:number],
        )


def coco_boxes(boxes: Tensor) -> list[list[float]]:
    """(num, 4) x1 y1 x2 y2 -> x, y, width and height of each, as COCO writes boxes."""
    boxes = boxes.double()
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()


@dataclass(frozen=True)
class FoundObject:
    """An object in an image.

    Attributes:
        name: of its class.
        score: 0..1.
        box: x1, y1, x2, y2 in pixels of the image.
        area: in pixels, of the mask if there is one, else of the box.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]
    area: float


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """The prediction for one image file.

    Attributes:
        path: the image file.
        objects: in falling order of their scores; empty if there was an error.
        detections: the same as tensors, with masks; None if there was an error.
        info: of the data that the model was trained on.
        error: why the image could not be read, in one line; None if it could.
        min_score: least score of the objects that are printed and drawn.
    """

    path: Path
    objects: tuple[FoundObject, ...]
    detections: Detections | None
    info: DataInfo
    error: str | None = None
    min_score: float = MIN_SCORE

    @classmethod
    def of(
        cls, path: Path, detections: Detections | None, error: str | None, info: DataInfo
    ) -> ImageDetections:
        """The prediction for an image file, from the objects in the image."""
        if detections is None:
            return cls(path, (), None, info, error)
        x1, y1, x2, y2 = detections.boxes.unbind(1)
        areas = ((x2 - x1) * (y2 - y1)).tolist()
        if detections.masks is not None:
            areas = [float(mask.area) for mask in detections.masks]
        objects = [
            FoundObject(info.class_names[label], score, (box[0], box[1], box[2], box[3]), area)
            for label, score, box, area in zip(
                detections.labels.tolist(),
                detections.scores.tolist(),
                detections.boxes.tolist(),
                areas,
                strict=True,
            )
        ]
        return cls(path, tuple(objects), detections, info, error)

    def to_dict(self) -> dict[str, Any]:
        """Path, objects with class, score, box and area, and error."""
        objects = [
            {
                "class": each.name,
                "score": round(each.score, 4),
                "box": [round(value, 2) for value in each.box],
                "area": round(each.area, 2),
            }
            for each in self.objects
        ]
        return {"path": shown(self.path), "objects": objects, "error": self.error}

    def __rich__(self) -> RenderableType:
        likely = [each for each in self.objects if each.score >= self.min_score]
        table = Table(box=None, show_header=False, pad_edge=False)
        for each in likely[:_MOST_ROWS]:
            x1, y1, x2, y2 = (round(value) for value in each.box)
            table.add_row(
                f"{each.score:.3f}", escape(each.name), f"{x2 - x1} x {y2 - y1} px at {x1}, {y1}"
            )
        lines: list[RenderableType] = [table] if likely else []
        if len(likely) > _MOST_ROWS:
            lines.append(
                f"and {len(likely) - _MOST_ROWS} more with scores of at least {self.min_score}"
            )
        if number := len(self.objects) - len(likely):
            lines.append(
                f"{number} with lower scores"
                if likely
                else f"none above {self.min_score}; {number} below"
            )
        return Group(*(lines or ["no objects"]))
