"""The pictures of one explained image: files in its folder, and a section of the page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup
from torch import Tensor

from pacavit.explain.choice import FOLDER, MapChoice
from pacavit.explain.classification import ImageExplanation
from pacavit.explain.core.masks import keep, mask_area, remove
from pacavit.explain.methods.base import METHODS
from pacavit.explain.render import (
    cluster_gallery,
    cluster_masks,
    fitted_size,
    map_masks,
    overlay,
    thumbnail,
)
from pacavit.report import html
from pacavit.utils.command import pacavit_command
from pacavit.utils.pictures import data_uri, figure_bytes, png_bytes, png_uri

__all__ = ["BORDER", "choice_parts", "write_pictures"]

BORDER = (
    "The map does not cover the border, which was cropped before the image entered the network."
)
_SMALL = 128  # pixels of the longer side
_THRESHOLDS = {
    "otsu": "Otsu's threshold",
    "quantile": "the highest quarter of the area",
    "mass": "half of the map's sum",
}
_KINDS = {"mask": "mask", "keep": "kept", "remove": "removed"}


def choice_parts(choice: MapChoice) -> list[Markup]:
    """What was measured about the default map, and the command that measures it.

    Pages are given away, so the run's folder is called DIR in them.
    """
    parts = [html.paragraph(choice.note)] if choice.note else []
    if choice.command is not None:
        measure = pacavit_command("explain-evaluate", "DIR", out=f"DIR/{FOLDER}")
        parts.append(html.command(measure, "Measure which map is faithful:"))
    return parts


def write_pictures(
    explanation: ImageExplanation, folder: Path
) -> tuple[Mapping[str, Mapping[str, float]], Markup]:
    """Write the pictures of an image into a new folder.

    Masks, and the images they keep and remove, have the resolution of the image; overlays and
    galleries of clusters have the size of a display.

    Args:
        explanation: of the image.
        folder: must not exist.

    Returns:
        The area of each mask as a fraction of the network's input, by method and threshold, and
        HTML with the main pictures for the page.
    """
    folder.mkdir()
    shown = [_map_figure(explanation, method, folder) for method in explanation.maps]
    areas, masks = _write_masks(explanation, folder)
    galleries = _galleries(explanation, folder)
    parts = [html.paragraph(BORDER)] if explanation.placement.has_border else []
    parts += [html.side_by_side(*shown), masks]
    if galleries:
        parts.append(html.folded("Clusters of every stage", *galleries))
    return areas, Markup("\n").join(parts)


def _map_figure(explanation: ImageExplanation, method: str, folder: Path) -> Markup:
    note = explanation.title(method)
    picture = figure_bytes(overlay(explanation, method, note), dpi=100)
    (folder / f"{method}.png").write_bytes(picture)
    name = explanation.explained.name
    about = f"for {name}" if METHODS.get(method).class_specific else "for any class"
    source = data_uri(picture, "image/png")
    return html.picture(source, f"{note} {about}", f"{note}, {about}")


def _galleries(explanation: ImageExplanation, folder: Path) -> list[Markup]:
    galleries = []
    for clusters in explanation.stages:
        picture = figure_bytes(cluster_gallery(explanation, clusters), dpi=100)
        (folder / f"clusters-stage{clusters.stage}.png").write_bytes(picture)
        caption = (
            f"Stage {clusters.stage}: the cluster of every patch, then heatmaps of the clusters "
            f"with their fraction of the importance for {explanation.explained.name}, in block "
            f"{clusters.block}"
        )
        galleries.append(html.picture(data_uri(picture, "image/png"), caption, caption))
    return galleries


def _write_masks(
    explanation: ImageExplanation, folder: Path
) -> tuple[dict[str, dict[str, float]], Markup]:
    """Write masks of every map and of the top cluster, and the images they keep and remove."""
    areas: dict[str, dict[str, float]] = {}
    linked = []
    image = explanation.image
    first, *others = explanation.maps
    masks = map_masks(explanation, first)
    areas[first] = _areas(explanation, masks)
    small = thumbnail(image, fitted_size(explanation.placement.image_size, _SMALL))
    rows = [
        {
            "name": _THRESHOLDS[threshold],
            "area": html.percent(areas[first][threshold]),
            "pictures": zip(
                links, _small_pictures(small, masks[threshold]), _KINDS.values(), strict=True
            ),
        }
        for threshold, links in _write_pictures(image, masks, folder).items()
    ]
    for method in others:
        masks = map_masks(explanation, method)
        areas[method] = _areas(explanation, masks)
        linked.append((explanation.title(method), _write_pictures(image, masks, folder, method)))
    if explanation.stages:
        clusters = explanation.stages[-1]
        best = clusters.ranking()[0]
        name = f"stage{clusters.stage}-cluster{best}"
        title = (
            f"cluster {best} of stage {clusters.stage}, block {clusters.block}, the most important"
        )
        masks = cluster_masks(explanation, clusters)
        linked.append((title, _write_pictures(image, masks, folder, name)))
    values = {
        "rows": rows,
        "linked": linked,
        "kinds": tuple(_KINDS.values()),
        "thresholds": _THRESHOLDS,
        "folder": folder.name,
        "title": explanation.title(first),
    }
    return areas, html.render("masks.html", values)


def _areas(explanation: ImageExplanation, masks: Mapping[str, Tensor]) -> dict[str, float]:
    return {threshold: mask_area(mask, explanation.placement) for threshold, mask in masks.items()}


def _write_pictures(
    image: Tensor, masks: Mapping[str, Tensor], folder: Path, *name: str
) -> dict[str, list[str]]:
    """Write masks and the images that each keeps and removes; returns links by threshold."""
    return {
        threshold: [
            _save(picture, folder / f"{'-'.join((kind, threshold, *name))}.png")
            for kind, picture in zip(_KINDS, _pictures(image, mask), strict=True)
        ]
        for threshold, mask in masks.items()
    }


def _small_pictures(small: Tensor, mask: Tensor) -> list[str]:
    """A mask, and the small pictures that it keeps and removes, as data URLs."""
    small_mask = thumbnail(mask, (small.shape[1], small.shape[2]))
    return [png_uri(picture) for picture in _pictures(small, small_mask)]


def _pictures(image: Tensor, mask: Tensor) -> Iterator[Tensor]:
    """A mask, and the images that it keeps and removes; a generator, because images are large."""
    yield mask
    yield keep(image, mask)
    yield remove(image, mask)


def _save(picture: Tensor, file: Path) -> str:
    """Write a picture; returns its URL relative to the page."""
    file.write_bytes(png_bytes(picture))
    return quote(os.fsencode(f"{file.parent.name}/{file.name}"))
