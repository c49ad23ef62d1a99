"""Explanations of segmentations: pictures, JSON, and an explorer of classes, regions, clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup

from pacavit.explain.render import display_size, fitted_size, thumbnail
from pacavit.explain.render_segmentation import (
    alone_picture,
    attended_classes,
    attention_figure,
    class_picture_with_legend,
    cluster_gallery,
    region_picture,
)
from pacavit.explain.segmentation import (
    HeadClusters,
    RegionExplanation,
    SegmentationExplanation,
)
from pacavit.report import html
from pacavit.report.explanation.base import PAGES, ExplanationPages, WrittenImage, rounded
from pacavit.report.explanation.packing import (
    bounded,
    cluster_weights,
    file_part,
    on_grid,
    palette,
    plain_bytes,
    relative_bytes,
)
from pacavit.tasks.segmentation.preprocess import resize_mask
from pacavit.utils.pictures import data_uri, figure_bytes, jpeg_bytes, png_bytes
from pacavit.utils.text import shown

__all__ = ["SegmentationPages"]

_THUMBNAIL = 96  # pixels of the longer side
_GRID = 128  # cells of the longer side that can be clicked
_KEPT = 5  # most likely classes, and most attended clusters, of a cell


@PAGES.register("segmentation")
class SegmentationPages(ExplanationPages[SegmentationExplanation]):
    """Classes in color, the map of each region, and the clusters of the head."""

    def write(self, explanation: SegmentationExplanation, folder: Path) -> WrittenImage:
        """Write ``overlay.jpg``, a picture per region, and those of the head's clusters."""
        folder.mkdir()
        parts = [_overlay(explanation, folder), _regions(explanation, folder)]
        if explanation.clusters is not None:
            parts.append(_clusters(explanation, explanation.clusters, folder))
        pictures = Markup("\n").join(parts)
        return WrittenImage(_numbers(explanation), _explorer_data(explanation), pictures)

    def explorer(self, images: Sequence[Mapping[str, Any]]) -> list[Markup]:
        """Classes of the image; a click on a pixel shows their probabilities, and clusters."""
        names, colors = images[0]["names"], images[0]["palette"]
        values = {"images": images, "legend": list(zip(names, colors, strict=True))}
        data = {"images": images, "colors": palette(), "names": names, "palette": colors}
        return [
            html.render("segmentation_explorer.html", values),
            html.data_block("explorer-data", data),
        ]

    def script(self) -> str:
        """The script of the explorer."""
        names = ("explorer_base.js", "segmentation_explorer.js")
        return "".join(html.template_text(name) for name in names)

    def lead(self, image: Mapping[str, Any]) -> str:
        """Sentences on the maps and on the clusters."""
        maps = (
            "Each pixel of an image has a class. The maps show which areas contribute to the mean "
            "score of a class over a region, which is outlined; bright areas contribute most."
        )
        if image["clusters"] is None:
            return maps
        return (
            f"{maps} The head of this model has one cluster per class; a click on a pixel shows "
            "the clusters that it attends to."
        )

    def line(self, numbers: Mapping[str, Any]) -> str:
        """The largest classes with their areas."""
        return ", ".join(f"{each['class']} {each['area']:.1%}" for each in numbers["classes"][:3])


def _overlay(explanation: SegmentationExplanation, folder: Path) -> Markup:
    picture = jpeg_bytes(class_picture_with_legend(explanation))
    (folder / "overlay.jpg").write_bytes(picture)
    caption = "Predicted classes, with their fractions of the area"
    return html.picture(data_uri(picture, "image/jpeg"), caption, caption)


def _regions(explanation: SegmentationExplanation, folder: Path) -> Markup:
    """A map over the image per region."""
    pictures = []
    for number, region in enumerate(explanation.regions, 1):
        picture = png_bytes(region_picture(explanation, region))
        name = file_part(explanation.names[region.label])
        (folder / f"region-{number}-{name}.png").write_bytes(picture)
        caption = f"{_question(explanation, region)} By {explanation.title()}. {_facts(region)}"
        pictures.append(html.picture(data_uri(picture, "image/png"), caption, caption))
    return html.side_by_side(*pictures)


def _question(explanation: SegmentationExplanation, region: RegionExplanation) -> str:
    """The question that a map answers; the region has the class, or most of it has not."""
    name = explanation.names[region.label]
    return f"Why is this {name}?" if region.agreement >= 0.5 else f"Why is this not {name}?"


def _facts(region: RegionExplanation) -> str:
    return (
        f"The region has {html.percent(region.area)} of the image; the mean probability of the "
        f"class in it is {html.percent(region.probability)}."
    )


def _clusters(explanation: SegmentationExplanation, clusters: HeadClusters, folder: Path) -> Markup:
    """The clusters alone, the clusters that classes attend to, and all of the clusters."""
    alone = png_bytes(alone_picture(explanation, clusters))
    (folder / "clusters-alone.png").write_bytes(alone)
    caption = (
        "The final answer, and the classes whose clusters are highest: they agree in "
        f"{html.percent(clusters.agreement)} of the pixels"
    )
    parts = [html.picture(data_uri(alone, "image/png"), caption, caption)]
    attention = attention_figure(explanation, clusters)
    if attention is not None:
        picture = figure_bytes(attention, dpi=100)
        (folder / "attention.png").write_bytes(picture)
        caption = "The clusters that the pixels of each class in the image attend to"
        parts.append(html.picture(data_uri(picture, "image/png"), caption, caption))
    gallery = png_bytes(cluster_gallery(explanation, clusters))
    (folder / "clusters.png").write_bytes(gallery)
    caption = (
        "Of each class, the weights of the pixels in its cluster (relative to the largest), and "
        "the probability of the class by the clusters alone"
    )
    parts.append(html.picture(data_uri(gallery, "image/png"), caption, caption))
    return html.folded("Clusters of the head", *parts)


def _numbers(explanation: SegmentationExplanation) -> dict[str, Any]:
    """The JSON record of an image."""
    names, clusters = explanation.names, explanation.clusters
    return {
        "method": explanation.method,
        "stages": list(explanation.stages),
        "classes": [
            {"class": names[label], "area": round(area, 6)} for label, area in explanation.areas()
        ],
        "regions": [
            {
                "class": names[region.label],
                "area": round(region.area, 6),
                "agreement": round(region.agreement, 6),
                "probability": round(region.probability, 6),
            }
            for region in explanation.regions
        ],
        "clusters": None
        if clusters is None
        else {
            "agreement": round(clusters.agreement, 6),
            "attention": {
                names[label]: dict(zip(names, rounded(attention), strict=True))
                for label, attention in attended_classes(explanation, clusters)
            },
        },
    }


def _explorer_data(explanation: SegmentationExplanation) -> dict[str, Any]:
    """The data of an image for the page's script; rows of cells are of the grid that is clicked."""
    size = explanation.placement.image_size
    grid = fitted_size(size, min(_GRID, max(size)))
    probabilities = on_grid(explanation.logits, grid).softmax(0)
    likely = probabilities.flatten(1).topk(min(_KEPT, len(probabilities)), dim=0)
    areas = explanation.areas()
    small = thumbnail(explanation.image, fitted_size(size, _THUMBNAIL))
    return {
        "name": shown(explanation.path.name),
        "label": ", ".join(f"{explanation.names[label]} {area:.1%}" for label, area in areas[:3]),
        "thumbnail": data_uri(jpeg_bytes(small), "image/jpeg"),
        "picture": data_uri(
            jpeg_bytes(thumbnail(explanation.image, display_size(size))), "image/jpeg"
        ),
        "names": explanation.names,
        "palette": explanation.colors,
        "size": size,
        "grid": grid,
        "kept": len(likely.values),
        "classBytes": plain_bytes(likely.indices.T),
        "probabilityBytes": plain_bytes((255 * likely.values.T).round()),
        "regions": [_region_data(explanation, region, grid) for region in explanation.regions],
        "clusters": None
        if explanation.clusters is None
        else _cluster_data(explanation.clusters, size, grid),
    }


def _region_data(
    explanation: SegmentationExplanation, region: RegionExplanation, grid: tuple[int, int]
) -> dict[str, Any]:
    values = bounded(region.map).clamp(min=0)
    return {
        "title": _question(explanation, region),
        "size": list(values.shape),
        "bytes": relative_bytes(values.flatten()[None]),
        "insideBytes": plain_bytes(resize_mask(region.region.to(torch.uint8), grid)),
    }


def _cluster_data(
    clusters: HeadClusters, size: tuple[int, int], grid: tuple[int, int]
) -> dict[str, Any]:
    data = cluster_weights(clusters, size)
    data["aloneBytes"] = plain_bytes(resize_mask(clusters.labels, grid))
    if clusters.attention is not None:
        kept = min(_KEPT, len(clusters.attention))
        attended = on_grid(clusters.attention, grid).flatten(1).topk(kept, dim=0)
        data["attendedBytes"] = plain_bytes(attended.indices.T)
        data["attentionBytes"] = plain_bytes((255 * attended.values.T).round())
    return data
