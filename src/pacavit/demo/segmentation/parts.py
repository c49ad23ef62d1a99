"""The part of the demo's page for segmentation models."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pacavit.demo import parts
from pacavit.demo.explained import Place
from pacavit.demo.segmentation import views
from pacavit.demo.segmentation.segmented import Segmented
from pacavit.demo.views import message, script
from pacavit.errors import PacavitError

__all__ = ["SegmentParts"]


class SegmentParts(parts.TaskParts[Segmented]):
    """The components that show a segmented image.

    Attributes:
        picture: the image with its classes; clicks on it choose a pixel.
        opacity: of the colors, in percent.
    """

    shows = Segmented

    def __init__(self) -> None:
        with gr.Tabs():
            with gr.Tab("Classes"):
                gr.HTML(message("Click a pixel to see its class, and why it has it."))
                with gr.Row():
                    with gr.Column(min_width=280):
                        self.picture = gr.Image(
                            show_label=False,  # a label would cover the first pixels
                            interactive=False,
                            format="png",
                            buttons=[],
                            elem_id="pv-classes-picture",
                        )
                        self.hover = parts.html("pv-hover")
                        self.opacity = gr.Slider(
                            0, 100, value=60, step=5, label="Opacity in percent"
                        )
                        self.areas = parts.html("pv-areas")
                    with gr.Column(min_width=240):
                        self.pixel = parts.html("pv-pixel")
                        self.region = parts.html("pv-region")
            with gr.Tab("Clusters of the head"):
                self.clusters = parts.html("pv-head-clusters")
        self.controls = [self.opacity]
        self.outputs = [
            *(self.picture, self.hover, self.areas, self.pixel, self.region, self.clusters)
        ]

    def shown(self, explained: Segmented, *values: Any) -> dict[Any, Any]:
        """What the components show of an image, with the opacity in percent."""
        (opacity,) = values
        return {
            self.picture: views.picture(explained, opacity / 100),
            self.hover: views.hover(explained),
            self.areas: views.areas(explained),
            self.pixel: views.pixel(explained),
            self.region: views.region(explained),
            self.clusters: views.clusters(explained),
        }

    def emptied(self) -> dict[Any, Any]:
        """What the components show without an image."""
        texts = (self.hover, self.areas, self.pixel, self.region, self.clusters)
        empty = dict.fromkeys(texts, "")
        return {**empty, self.picture: None}

    def connect(self, page: parts.Page) -> None:
        """Connect clicks on the picture, and the opacity."""
        self.page = page
        self.picture.select(
            self.on_pixel,
            [page.state, self.opacity],
            [page.state, page.status, *self.outputs],
            **parts.EVERY,
        )
        page.explained.then(None, js=script("hover.js"))
        self.opacity.input(self.on_opacity, [page.state, self.opacity], self.picture, **parts.QUIET)

    def on_pixel(
        self, segmented: Segmented | None, opacity: float, event: gr.SelectData
    ) -> dict[Any, Any]:
        """The pixel that was clicked: why does its region have its class?"""
        if segmented is None:
            return {self.page.state: None, **self.emptied()}
        place = Place(pixel=segmented.image_pixel(*event.index))
        try:
            found = self.page.again(segmented, place)
        except PacavitError as error:
            return {self.page.status: message(str(error), error=True)}
        return {self.page.state: found, **self.shown(found, opacity)}

    def on_opacity(self, segmented: Segmented | None, opacity: float) -> Any:
        """The classes at another opacity."""
        return None if segmented is None else views.picture(segmented, opacity / 100)
