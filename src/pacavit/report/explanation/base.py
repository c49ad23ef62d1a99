"""The interface of what is written about an explanation: pictures, numbers, and an explorer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from markupsafe import Markup

from pacavit.explain import Explanation
from pacavit.utils.registry import Registry

__all__ = ["PAGES", "ExplanationPages", "WrittenImage", "rounded"]

E_contra = TypeVar("E_contra", bound=Explanation, contravariant=True)


class WrittenImage(NamedTuple):
    """What was written about an image.

    Attributes:
        numbers: its record in the JSON file, after path, error and folder.
        data: of the image, for the page's script; with its ``name`` and ``label``.
        pictures: HTML with the main pictures for the page.
    """

    numbers: Mapping[str, Any]
    data: Mapping[str, Any]
    pictures: Markup


class ExplanationPages(ABC, Generic[E_contra]):
    """Writes explanations of one kind. Register one with ``@PAGES.register(kind)``."""

    @abstractmethod
    def write(self, explanation: E_contra, folder: Path) -> WrittenImage:
        """Write the pictures of an image into a new folder."""

    @abstractmethod
    def explorer(self, images: Sequence[Mapping[str, Any]]) -> list[Markup]:
        """The part of a page that its script turns into an explorer, and the data for it.

        Args:
            images: ``data`` of one image or more.
        """

    @abstractmethod
    def script(self) -> str:
        """The script of the explorer."""

    @abstractmethod
    def lead(self, image: Mapping[str, Any]) -> str:
        """What the page shows, in a few sentences, from the data of its first image."""

    @abstractmethod
    def line(self, numbers: Mapping[str, Any]) -> str:
        """The result of an image for the console, from its record."""


PAGES: Registry[ExplanationPages[Any]] = Registry("kind of explanation")


def rounded(values: Iterable[float]) -> list[float]:
    """Numbers with five digits, to keep files small."""
    return [round(float(value), 5) for value in values]
