"""What the demo knows of an image, whatever the task of the model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from pacavit.explain import Explanation
from pacavit.explain.render import display_size

__all__ = ["NOWHERE", "Explained", "Place"]

E_co = TypeVar("E_co", bound=Explanation, covariant=True)


class Place(NamedTuple):
    """Where in an image a question is asked; nowhere in particular by default.

    Attributes:
        pixel: (x, y) in the image, of which a segmentation is explained.
        box: x1, y1, x2, y2 in pixels of the image, of which a detection is explained.
    """

    pixel: tuple[int, int] | None = None
    box: tuple[float, float, float, float] | None = None


NOWHERE = Place()


@dataclass(frozen=True, eq=False)
class Explained(Generic[E_co]):
    """An explained image at the size of a display.

    Attributes:
        model: name of the weights.
        classes: all classes of the model.
        source: the image file; ``explanation.path`` is the user's name of it.
        label: the chosen class; None leaves it to the explainer.
        explanation: of the image.
    """

    model: str
    classes: tuple[str, ...]
    source: Path
    label: str | None
    explanation: E_co

    @property
    def place(self) -> Place:
        """What the explanation is about."""
        return Place()

    def matches(self, model: str, source: Path, label: str | None) -> bool:
        """Whether ``Models.explain`` with these arguments would return the same image."""
        return (self.model, self.source, self.label) == (model, source, label)

    @cached_property
    def size(self) -> tuple[int, int]:
        """(height, width) of the displayed picture."""
        return display_size(self.explanation.placement.image_size)

    def image_pixel(self, x: float, y: float) -> tuple[int, int]:
        """(x, y) of the displayed picture -> the pixel of the image there, or nearest to it."""
        height, width = self.explanation.placement.image_size
        column = int((x + 0.5) * width / self.size[1])
        row = int((y + 0.5) * height / self.size[0])
        return min(max(column, 0), width - 1), min(max(row, 0), height - 1)
