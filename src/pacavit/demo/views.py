"""What the demo shows, as HTML with its pictures inside; texts that are handed in are escaped."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from pacavit.demo.explaining import Explained, attended, mask, patch_region
from pacavit.explain import METHODS, StageClusters, keep, mask_area, method_title, remove
from pacavit.explain.render import (
    COLOURS,
    cluster_colours,
    fitted_size,
    heat_picture,
    partition_picture,
    pillow_image,
    png_bytes,
    thumbnail,
)
from pacavit.utils.templates import Templates

__all__ = [
    "comparison",
    "galleries",
    "header",
    "masks",
    "message",
    "patch",
    "patch_picture",
    "style",
    "top",
]

_TEMPLATES = Templates("pacavit.demo")

_TILE = 160  # pixels of the longer side of a small picture
_CLUSTERS = 24  # of a stage, the most important ones
_ATTENDED = 12  # clusters of a patch


class _Figure(NamedTuple):
    """A picture with words for those who see it and for those who do not; bars are 0..1 long."""

    picture: str
    alt: str
    caption: str
    note: str = ""
    bar: float | None = None
    colour: str | None = None


def header() -> str:
    """The head of the page."""
    return _TEMPLATES.render("header.html", {})


def message(text: str, *, error: bool = False) -> str:
    """A line that says what happened, or what to do."""
    return _TEMPLATES.render("message.html", {"text": text, "error": error})


def top(explained: Explained) -> str:
    """The likeliest classes with bars; the one that the maps explain is marked."""
    told = explained.explanation
    return _TEMPLATES.render("top.html", {"rows": told.top, "explained": told.explained})


def masks(explained: Explained, method: str, threshold: str, share: float) -> str:
    """A map, its binary mask, and the picture with only the masked area and without it."""
    inside = mask(explained, method, threshold, share)
    area = mask_area(inside, explained.placement)
    name, probability = explained.explanation.explained
    about = METHODS.get(method).class_specific
    figures = [
        _Figure(
            _jpeg(heat_picture(explained.picture, explained.heat(method))),
            f"{method_title(method)} over the image",
            f"why {name} ({probability:.1%})" if about else "where it looks, whatever the class",
        ),
        _Figure(_png(inside), "binary mask", f"mask: {area:.1%} of what it saw"),
        _Figure(_jpeg(keep(explained.picture, inside)), "inside the mask", "kept"),
        _Figure(_jpeg(remove(explained.picture, inside)), "outside the mask", "removed"),
    ]
    return _TEMPLATES.render("masks.html", {"figures": figures, "legend": _legend()})


def galleries(explained: Explained) -> str:
    """For every stage with clusters its partition, and the heatmaps of its clusters."""
    stages = [
        {
            "title": f"Stage {clusters.stage}",
            "note": _gallery_note(explained, clusters),
            "figures": [_partition(explained, clusters), *_heatmaps(explained, clusters)],
        }
        for clusters in explained.explanation.stages
    ]
    return _TEMPLATES.render("galleries.html", {"stages": stages, "model": explained.model})


def patch(explained: Explained, stage: int, row: int, column: int) -> str:
    """The clusters that a patch attends to, with bars and heatmaps.

    Raises:
        PacavitError: there is no such stage or patch.
    """
    clusters = explained.clusters(stage)
    found = attended(clusters, row, column)
    colours = _css_colours(clusters)
    figures = [
        _Figure(
            _tile(explained, clusters, cluster),
            f"heatmap of cluster {cluster}",
            f"cluster {cluster}",
            f"{share:.0%} of the attention",
            share / found[0][1],
            colours[cluster],
        )
        for cluster, share in found[:_ATTENDED]
    ]
    rest = sum(share for _, share in found[_ATTENDED:])
    values = {"row": row + 1, "column": column + 1, "figures": figures, "rest": rest}
    return _TEMPLATES.render("patch.html", values)


def patch_picture(explained: Explained, stage: int, row: int, column: int) -> Image.Image:
    """The partition of a stage over the image, with a frame around a patch."""
    clusters = explained.clusters(stage)
    picture = pillow_image(partition_picture(explained.picture, clusters, explained.placement))
    top_, left, height, width = patch_region(explained, clusters, row, column)
    frame = ImageDraw.Draw(picture)
    for grow, colour in ((3, "black"), (2, "white"), (1, "white"), (0, "black")):
        box = (left - grow, top_ - grow, left + width + grow - 1, top_ + height + grow - 1)
        frame.rectangle(box, outline=colour)
    return picture


def comparison(first: Explained, second: Explained) -> str:
    """Two models on the same image: classes, map, and the partition of every stage."""
    return _TEMPLATES.render(
        "comparison.html", {"columns": [_column(first), _column(second)], "legend": _legend()}
    )


def style() -> str:
    """The style sheet of the page; it takes its colours from Gradio's theme, light or dark."""
    return _TEMPLATES.text("style.css")


def _column(explained: Explained) -> Mapping[str, Any]:
    told = explained.explanation
    method = next(iter(told.maps))
    name = told.explained.name
    heat = _jpeg(heat_picture(explained.picture, explained.heat(method)))
    figures = [_Figure(heat, f"{method_title(method)} of {explained.model}", f"why {name}")]
    for clusters in reversed(told.stages):
        caption = f"stage {clusters.stage}: {len(clusters.ranking())} clusters"
        figures.append(_partition(explained, clusters)._replace(caption=caption, note=""))
    return {
        "model": explained.model,
        "rows": told.top,
        "explained": told.explained,
        "figures": figures,
    }


def _gallery_note(explained: Explained, clusters: StageClusters) -> str:
    grid, number = clusters.grid, len(clusters.ranking())
    shown = f"{_CLUSTERS} of {number}" if number > _CLUSTERS else f"{number}"
    return (
        f"block {clusters.block}, {grid.height} x {grid.width} patches, {shown} clusters; the most "
        f"important for {explained.explanation.explained.name} first"
    )


def _partition(explained: Explained, clusters: StageClusters) -> _Figure:
    small = partition_picture(explained.picture, clusters, explained.placement)
    return _Figure(
        _jpeg(_reduced(small)), f"partition of stage {clusters.stage}", "partition", "every cluster"
    )


def _heatmaps(explained: Explained, clusters: StageClusters) -> list[_Figure]:
    shares = clusters.shares()
    largest = float(shares.max().clamp(min=1e-30))
    colours = _css_colours(clusters)
    figures = []
    for cluster in clusters.ranking()[:_CLUSTERS]:
        share = float(shares[cluster])
        figures.append(
            _Figure(
                _tile(explained, clusters, cluster),
                f"heatmap of cluster {cluster} of stage {clusters.stage}",
                f"cluster {cluster}",
                f"{share:.0%} of importance",
                share / largest,
                colours[cluster],
            )
        )
    return figures


def _tile(explained: Explained, clusters: StageClusters, cluster: int) -> str:
    """A small picture with the heatmap of a cluster, as a data URI."""
    picture = _reduced(explained.picture)
    placement = explained.placement.resized((picture.shape[1], picture.shape[2]))
    return _jpeg(heat_picture(picture, clusters.heat(cluster, placement)))


def _reduced(picture: Tensor) -> Tensor:
    return thumbnail(picture, fitted_size((picture.shape[1], picture.shape[2]), _TILE))


def _css_colours(clusters: StageClusters) -> Sequence[str]:
    colours = (np.array(cluster_colours(clusters)) * 255).round().astype(int)
    return [f"rgb({red} {green} {blue})" for red, green, blue in colours.tolist()]


@cache
def _legend() -> str:
    """The colours of maps from 0 to most, for a CSS gradient."""
    colours = (mpl.colormaps[COLOURS](np.linspace(0, 1, 9))[:, :3] * 255).round().astype(int)
    return ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in colours.tolist())


def _jpeg(picture: Tensor) -> str:
    file = BytesIO()
    pillow_image(picture).save(file, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"


def _png(picture: Tensor) -> str:
    return f"data:image/png;base64,{b64encode(png_bytes(picture)).decode()}"
