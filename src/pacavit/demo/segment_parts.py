"""The part of the demo's page for segmentation models."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pacavit.demo import segmentation_views, views
from pacavit.demo.segmenting import Segmented

__all__ = ["SegmentParts"]


class SegmentParts:
    """The components that show a segmented image; made inside of a column of the page.

    Attributes:
        picture: the image with its classes; clicks on it choose a pixel.
        opacity: of the colors, in percent.
    """

    def __init__(self) -> None:
        with gr.Tabs():
            with gr.Tab("Classes"):
                gr.HTML(views.message("Click a pixel to see its class, and why it has it."))
                with gr.Row():
                    with gr.Column(min_width=280):
                        self.picture = gr.Image(
                            show_label=False,  # a label would cover the first pixels
                            interactive=False,
                            format="png",
                            buttons=[],
                            elem_id="pv-classes-picture",
                        )
                        self.opacity = gr.Slider(
                            0, 100, value=60, step=5, label="Opacity in percent"
                        )
                        self.areas = _html("pv-areas")
                    with gr.Column(min_width=240):
                        self.pixel = _html("pv-pixel")
                        self.region = _html("pv-region")
            with gr.Tab("Clusters of the head"):
                self.clusters = _html("pv-head-clusters")

    @property
    def outputs(self) -> list[Any]:
        """The components that change with the image."""
        return [self.picture, self.areas, self.pixel, self.region, self.clusters]

    def shown(self, segmented: Segmented, opacity: float) -> dict[Any, Any]:
        """What the components show of an image."""
        return {
            self.picture: segmentation_views.picture(segmented, opacity / 100),
            self.areas: segmentation_views.areas(segmented),
            self.pixel: segmentation_views.pixel(segmented),
            self.region: segmentation_views.region(segmented),
            self.clusters: segmentation_views.clusters(segmented),
        }

    def emptied(self) -> dict[Any, Any]:
        """What the components show without an image."""
        empty = dict.fromkeys((self.areas, self.pixel, self.region, self.clusters), "")
        return {**empty, self.picture: None}


def _html(name: str) -> gr.HTML:
    return gr.HTML(apply_default_css=False, elem_id=name)
