"""The most probable classes of images, as plain data and on the console."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from pacavit.tasks.classification.classifier import ClassProbability
from pacavit.utils.text import shown

__all__ = ["ImagePrediction"]

BAR_CELLS = 20  # length of the bar of a probability of 1


@dataclass(frozen=True)
class ImagePrediction:
    """The most probable classes of one image.

    Attributes:
        path: the image file.
        top: the most probable classes, most probable first; empty if there was an error.
        error: why the image could not be read, in one line; None if it could.
    """

    path: Path
    top: tuple[ClassProbability, ...]
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Path, classes with probabilities, and error."""
        top = [
            {"class": name, "probability": round(probability, 6)} for name, probability in self.top
        ]
        return {"path": shown(self.path), "top": top, "error": self.error}

    def __rich__(self) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, probability in self.top:
            bar = "█" * round(probability * BAR_CELLS)
            table.add_row(f"{probability:7.2%}", escape(name), f"[cyan]{bar}[/cyan]")
        return table
