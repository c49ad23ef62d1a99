"""The classes that images show, as plain data and on the console."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.table import Table

from pacavit.tasks.classification import ImagePrediction

__all__ = ["LabelsPrediction"]


@dataclass(frozen=True)
class LabelsPrediction(ImagePrediction):
    """The classes of one image, and the probabilities of the most probable ones.

    Attributes:
        labels: the classes whose probability reaches the threshold, most probable first.
    """

    labels: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Path, classes, probabilities, and error."""
        return {**super().to_dict(), "labels": list(self.labels)}

    def __rich__(self) -> Table:
        table = super().__rich__()
        table.title = f"labels: {', '.join(self.labels) or 'none'}"
        table.title_justify = "left"
        return table
