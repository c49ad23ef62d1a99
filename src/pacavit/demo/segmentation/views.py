"""HTML fragments and pictures of the demo for segmentation models."""

from __future__ import annotations

import json
from typing import Any

from PIL import Image, ImageDraw

from pacavit.demo.segmentation.segmented import Segmented
from pacavit.demo.views import WEIGHTS, Figure, jpeg, legend_colors, render
from pacavit.explain.render import fitted_size
from pacavit.explain.render_segmentation import (
    alone_picture,
    class_picture,
    cluster_picture,
    marked,
    region_picture,
)
from pacavit.tasks.segmentation.preprocess import resize_mask
from pacavit.utils.pictures import base64_text, pillow_image

__all__ = ["areas", "clusters", "hover", "picture", "pixel", "region"]

_LIKELY, _ATTENDED = 5, 6
_MOST_CLUSTERS = 24
_CELLS = 200  # along the longer side, whose classes are shown under the cursor
_CROSS = 7  # pixels from the middle to the end of an arm


def areas(segmented: Segmented) -> str:
    """The classes in the image with their colors, and bars of their areas."""
    rows = [
        _row(segmented, label, area)
        for label, area in segmented.explanation.areas()
        if area >= 5e-4
    ]
    return render("areas.html", {"rows": rows, "chosen": None})


def picture(segmented: Segmented, opacity: float) -> Image.Image:
    """The image with its classes in color, the outline of the region, and a cross at the pixel."""
    colored = class_picture(segmented.explanation, opacity)
    image = pillow_image(marked(colored, segmented.region.region))
    x, y = segmented.displayed()
    draw = ImageDraw.Draw(image)
    for color, width in (("black", 5), ("white", 2)):
        draw.line((x - _CROSS, y, x + _CROSS, y), fill=color, width=width)
        draw.line((x, y - _CROSS, x, y + _CROSS), fill=color, width=width)
    return image


def hover(segmented: Segmented) -> str:
    """A line that names the class under the cursor, with the classes of the image's cells."""
    size = fitted_size(segmented.size, _CELLS)
    cells = resize_mask(segmented.explanation.labels, size)
    labels = range(len(segmented.classes))
    values = {
        "width": size[1],
        "height": size[0],
        "cells": base64_text(cells.numpy().tobytes()),
        "names": json.dumps(segmented.classes),
        "colors": json.dumps([_css(segmented, label) for label in labels]),
    }
    return render("hover.html", values)


def pixel(segmented: Segmented) -> str:
    """The class of the pixel with probabilities, and the clusters that it attends to."""
    names = segmented.classes
    likely = segmented.likely(_LIKELY)
    attended = segmented.attended(_ATTENDED)
    figures = [
        Figure(
            _tile(segmented, label),
            f"cluster of {names[label]}",
            names[label],
            f"{weight:.0%} of the attention",
            weight,
            _css(segmented, label),
        )
        for label, weight in attended
        if weight >= 0.005
    ]
    x, y = segmented.pixel
    values = {
        "x": x,
        "y": y,
        "rows": [_row(segmented, label, value) for label, value in likely],
        "chosen": names[likely[0][0]],
        "figures": figures,
    }
    return render("pixel.html", values)


def region(segmented: Segmented) -> str:
    """The map of the region under the pixel, with its class and numbers."""
    explanation, found = segmented.explanation, segmented.region
    name = segmented.classes[found.label]
    figure = Figure(
        jpeg(region_picture(explanation, found)),
        f"evidence for {name} in the outlined region",
        f"by {explanation.title()}",
    )
    values = {
        "name": name,
        "has": found.agreement >= 0.5,
        "area": found.area,
        "probability": found.probability,
        "one": figure,
        "legend": legend_colors(),
        "note": explanation.choice.note,
    }
    return render("region.html", values)


def clusters(segmented: Segmented) -> str:
    """The answer by the clusters alone, and the heatmaps of the clusters."""
    explanation, found = segmented.explanation, segmented.explanation.clusters
    values: dict[str, Any] = {"model": segmented.model}
    if found is None:
        return render("head_clusters.html", values | {"alone": None, "figures": [], "note": ""})
    present = [label for label, _ in explanation.areas()]
    others = [label for label in range(len(segmented.classes)) if label not in present]
    shown = (present + others)[:_MOST_CLUSTERS]
    figures = [
        Figure(
            _tile(segmented, label),
            f"cluster of {segmented.classes[label]}",
            segmented.classes[label],
            f"probability up to {float(found.probabilities[label].max()):.0%}",
            None,
            _css(segmented, label),
        )
        for label in shown
    ]
    alone = Figure(
        jpeg(alone_picture(explanation, found)),
        "classes of the final answer, of the clusters alone, and where they differ",
        f"the clusters alone agree with the final answer in {found.agreement:.1%} of the pixels",
    )
    more = len(segmented.classes) - len(shown)
    note = f"{WEIGHTS}; classes in the image first." + f" {more} more are not shown." * (more > 0)
    return render("head_clusters.html", values | {"alone": alone, "figures": figures, "note": note})


def _row(segmented: Segmented, label: int, value: float) -> tuple[str, float, str]:
    return segmented.classes[label], value, _css(segmented, label)


def _css(segmented: Segmented, label: int) -> str:
    red, green, blue = segmented.explanation.colors[label]
    return f"rgb({red} {green} {blue})"


def _tile(segmented: Segmented, label: int) -> str:
    """A small picture with the heatmap of a cluster, as a data URL."""
    found = segmented.explanation.clusters
    assert found is not None
    return jpeg(cluster_picture(segmented.explanation, found.weights[label]))
