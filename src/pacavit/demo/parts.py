"""The interface of what the page shows of a task's images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import gradio as gr

from pacavit.demo.explained import Explained, Place
from pacavit.demo.models import Models

__all__ = ["EVERY", "IN_ORDER", "QUIET", "Page", "TaskParts", "html"]

# One event at a time, so that results arrive in order.
IN_ORDER: Mapping[str, Any] = {
    "concurrency_id": "explain",
    "concurrency_limit": 1,
    "api_visibility": "private",
    "trigger_mode": "always_last",
    "show_progress": "minimal",
}
QUIET = {**IN_ORDER, "show_progress": "hidden"}
"""For changes that are shown at once."""
EVERY = {**IN_ORDER, "trigger_mode": "multiple"}
"""For clicks: a delayed one would carry the position of an earlier click."""

E = TypeVar("E", bound=Explained[Any])


@dataclass(frozen=True)
class Page:
    """What the parts of the page have in common.

    Attributes:
        models: the weights to choose from.
        state: holds the explained image, or None.
        status: the line for messages.
        explained: the event after which the parts show another image.
    """

    models: Models
    state: gr.State
    status: gr.HTML
    explained: Any

    def again(self, explained: E, place: Place) -> E:
        """The same image, explained at another place.

        Raises:
            PacavitError: there is nothing to explain.
        """
        found = self.models.explain(
            explained.model,
            explained.source,
            called=explained.explanation.path.name,
            label=explained.label,
            place=place,
        )
        assert isinstance(found, type(explained))
        return found


class TaskParts(ABC, Generic[E]):
    """The components that show the images of one task; made inside of a column of the page.

    Attributes:
        shows: the images that they show.
        controls: components whose values :meth:`shown` gets.
        outputs: components that change with the image.
        page: around the parts, once they are connected.
    """

    shows: ClassVar[type[Explained[Any]]]
    controls: Sequence[Any]
    outputs: Sequence[Any]
    page: Page

    def summary(self, explained: E) -> str:
        """A fragment below the choice of the class."""
        return ""

    @abstractmethod
    def shown(self, explained: E, *values: Any) -> dict[Any, Any]:
        """What the components show of an image, with the values of the controls."""

    @abstractmethod
    def emptied(self) -> dict[Any, Any]:
        """What the components show without an image."""

    @abstractmethod
    def connect(self, page: Page) -> None:
        """Connect the events of the components."""


def html(name: str) -> gr.HTML:
    """An empty fragment whose element has an id."""
    return gr.HTML(apply_default_css=False, elem_id=name)
