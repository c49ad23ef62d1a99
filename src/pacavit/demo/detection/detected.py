"""The computations of the demo for detectors: the objects in an image, and one of them."""

from __future__ import annotations

from dataclasses import dataclass

from pacavit.demo.explained import Explained, Place
from pacavit.explain import BoxExplanation, DetectionExplanation

__all__ = ["Detected"]


@dataclass(frozen=True, eq=False)
class Detected(Explained[DetectionExplanation]):
    """An image with its objects, of which one, or a box in which there is none, is explained."""

    @property
    def place(self) -> Place:
        """The box that is explained."""
        return Place(box=None if self.chosen is None else self.chosen.box)

    @property
    def chosen(self) -> BoxExplanation | None:
        """What is explained; None if no object was found."""
        boxes = self.explanation.boxes
        return boxes[0] if boxes else None

    def place_of(self, number: int) -> Place:
        """The box of an object that was found, from 0."""
        x1, y1, x2, y2 = self.explanation.detections.boxes[number].tolist()
        return Place(box=(x1, y1, x2, y2))

    def object_at(self, x: float, y: float, min_score: float) -> int | None:
        """The smallest object at (x, y) of the picture with at least a score; None: there is none.

        If objects have masks, those whose masks cover the place come first.
        """
        column, row = self.image_pixel(x, y)
        found = self.explanation.detections.above(min_score)
        left, top, right, bottom = found.boxes.unbind(1)
        here = (left <= column + 0.5) & (column + 0.5 <= right)
        here &= (top <= row + 0.5) & (row + 0.5 <= bottom)
        numbers: list[int] = here.nonzero()[:, 0].tolist()
        if found.masks is not None:
            masks = found.masks
            covered = [number for number in numbers if masks[number].decode()[row, column]]
            numbers = covered or numbers
        areas = ((right - left) * (bottom - top)).tolist()
        return min(numbers, key=lambda number: float(areas[number]), default=None)
