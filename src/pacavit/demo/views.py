"""HTML fragments of the demo, with pictures as data URLs; all text is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from torch import Tensor

from pacavit.explain.render import COLORMAP
from pacavit.utils.pictures import data_uri, jpeg_bytes
from pacavit.utils.templates import Templates

__all__ = ["WEIGHTS", "Figure", "header", "jpeg", "legend_colors", "message", "render", "style"]

_TEMPLATES = Templates("pacavit.demo")

WEIGHTS = "Weights of the pixels in each cluster, relative to the largest"
"""What the heatmaps of the clusters of a head show."""


class Figure(NamedTuple):
    """A picture with alternative text, caption and note; a bar is 0..1 long."""

    picture: str
    alt: str
    caption: str
    note: str = ""
    bar: float | None = None
    color: str | None = None


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill a template of the demo; text is escaped."""
    return _TEMPLATES.render(template, values)


def header() -> str:
    """The head of the page."""
    return _TEMPLATES.render("header.html", {})


def message(text: str, *, error: bool = False) -> str:
    """A line of status, instruction or error."""
    return _TEMPLATES.render("message.html", {"text": text, "error": error})


def style() -> str:
    """The style sheet of the page, which uses the colors of Gradio's light or dark theme."""
    return _TEMPLATES.text("style.css")


def script(name: str) -> str:
    """A script of the page, as a function without arguments."""
    return _TEMPLATES.text(name)


@cache
def legend_colors() -> str:
    """The colors of maps from 0 to the maximum, for a CSS gradient."""
    colors = (mpl.colormaps[COLORMAP](np.linspace(0, 1, 9))[:, :3] * 255).round().astype(int)
    return ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in colors.tolist())


def jpeg(picture: Tensor) -> str:
    """(3, H, W) uint8 -> a data URL."""
    return data_uri(jpeg_bytes(picture), "image/jpeg")
