"""The part of the demo's page for detectors."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pacavit.demo import parts
from pacavit.demo.detection import views
from pacavit.demo.detection.detected import Detected
from pacavit.demo.views import message
from pacavit.errors import PacavitError
from pacavit.tasks.detection.predictions import MIN_SCORE

__all__ = ["DetectParts"]


class DetectParts(parts.TaskParts[Detected]):
    """The components that show an image with its objects.

    Attributes:
        picture: the image with boxes and masks; clicks on it choose an object.
        score: least one of the objects that are shown.
        number: of the object that is explained.
    """

    shows = Detected

    def __init__(self) -> None:
        with gr.Tabs():
            with gr.Tab("Objects"):
                gr.HTML(message("Click an object, or choose it, to see why it was found."))
                with gr.Row():
                    with gr.Column(min_width=280):
                        self.picture = gr.Image(
                            show_label=False,  # a label would cover objects
                            interactive=False,
                            format="png",
                            buttons=[],
                            elem_id="pv-objects-picture",
                        )
                        self.score = gr.Slider(
                            0,
                            1,
                            value=MIN_SCORE,
                            step=0.05,
                            label="Least score",
                            elem_id="pv-score",
                        )
                        self.number = gr.Dropdown(
                            [], label="Object to explain", elem_id="pv-object"
                        )
                    with gr.Column(min_width=240):
                        self.why = parts.html("pv-why")
                self.objects = parts.html("pv-objects")
            with gr.Tab("Clusters of the head"):
                self.clusters = parts.html("pv-object-clusters")
        self.controls = [self.score]
        self._filtered = [self.picture, self.number, self.objects]
        self.outputs = [*self._filtered, self.why, self.clusters]

    def shown(self, explained: Detected, *values: Any) -> dict[Any, Any]:
        """What the components show of an image, with the least score."""
        (min_score,) = values
        return {
            **self.on_score(explained, min_score),
            self.why: views.why(explained),
            self.clusters: views.clusters(explained),
        }

    def emptied(self) -> dict[Any, Any]:
        """What the components show without an image."""
        empty = dict.fromkeys((self.why, self.objects, self.clusters), "")
        return {**empty, self.picture: None, self.number: gr.update(choices=[], value=None)}

    def connect(self, page: parts.Page) -> None:
        """Connect clicks on the picture, the choice of an object, and the score."""
        self.page = page
        changed = [page.state, page.status, *self.outputs]
        self.picture.select(self.on_click, [page.state, self.score], changed, **parts.EVERY)
        self.number.input(
            self.on_number, [page.state, self.score, self.number], changed, **parts.IN_ORDER
        )
        self.score.input(self.on_score, [page.state, self.score], self._filtered, **parts.QUIET)

    def on_score(self, detected: Detected | None, min_score: float) -> dict[Any, Any]:
        """The objects of at least another score."""
        if detected is None:
            return {part: found for part, found in self.emptied().items() if part in self._filtered}
        choices = views.choices(detected, min_score)
        number = None if detected.chosen is None else detected.chosen.number
        listed = number is not None and number < len(choices)
        return {
            self.picture: views.picture(detected, min_score),
            self.objects: views.objects(detected, min_score),
            self.number: gr.update(choices=choices, value=number if listed else None),
        }

    def on_click(
        self, detected: Detected | None, min_score: float, event: gr.SelectData
    ) -> dict[Any, Any]:
        """The object that was clicked: why was it found?"""
        if detected is None:
            return {self.page.state: None, **self.emptied()}
        x, y = event.index
        number = detected.object_at(x, y, min_score)
        if number is None:
            text = f"no object with a score of at least {min_score:g} there"
            return {self.page.status: message(text)}
        return self.on_number(detected, min_score, number)

    def on_number(
        self, detected: Detected | None, min_score: float, number: int | None
    ) -> dict[Any, Any]:
        """The object that was chosen."""
        if detected is None or number is None:
            return {self.page.state: detected}
        try:
            found = self.page.again(detected, detected.place_of(number))
        except PacavitError as error:
            return {self.page.status: message(str(error), error=True)}
        name = detected.explanation.path.name
        status = message(f"{name}, explained by {detected.model}")
        return {
            self.page.state: found,
            self.page.status: status,
            **self.shown(found, min_score),
        }
