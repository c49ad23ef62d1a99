"""Explanations of classifiers: pictures, JSON, and an explorer of maps and clusters."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pacavit.explain.classification import ImageExplanation, StageClusters
from pacavit.explain.methods.base import METHODS, method_title
from pacavit.explain.render import (
    cluster_colors,
    display_size,
    fitted_size,
    thumbnail,
)
from pacavit.report import html
from pacavit.report.explanation.base import PAGES, ExplanationPages, WrittenImage, rounded
from pacavit.report.explanation.packing import bounded, palette, relative_bytes
from pacavit.report.explanation.pictures import BORDER, write_pictures
from pacavit.utils.pictures import png_uri
from pacavit.utils.text import shown

__all__ = ["ClassificationPages", "explorer_page"]

_CONTRIBUTIONS = (
    "Each patch of an image attends to clusters of patches. The map shows which areas contribute "
    "to the score of the class, by the clusters and by the attention to them; bright areas "
    "contribute most."
)
_LEADS = {
    "cluster_contributions": _CONTRIBUTIONS,
    "cluster_gradient": _CONTRIBUTIONS,
    "class_map": (
        "Each patch of an image attends to clusters of patches. The map shows the clusters that "
        "increase the score of the class; bright clusters do so most."
    ),
    "attention_map": (
        "Each patch of an image attends to clusters of patches. The map shows the clusters that "
        "receive attention, bright ones most; it does not depend on the class."
    ),
}
_THUMBNAIL = 96  # pixels of the longer side


@PAGES.register("classification")
class ClassificationPages(ExplanationPages[ImageExplanation]):
    """Maps and masks of the image, and the clusters of every stage."""

    def write(self, explanation: ImageExplanation, folder: Path) -> WrittenImage:
        """Write maps, masks, and galleries of clusters."""
        areas, pictures = write_pictures(explanation, folder)
        return WrittenImage(_numbers(explanation, areas), _explorer_data(explanation), pictures)

    def explorer(self, images: Sequence[Mapping[str, Any]]) -> list[Markup]:
        """Maps of the image; a click on a patch shows the clusters that it attends to."""
        values = {"images": images, "clusters": bool(images[0]["stages"]), "border": BORDER}
        data = {"images": images, "colors": palette()}
        return [html.render("explorer.html", values), html.data_block("explorer-data", data)]

    def script(self) -> str:
        """The script of the explorer."""
        return html.template_text("explorer_base.js") + html.template_text("explorer.js")

    def lead(self, image: Mapping[str, Any]) -> str:
        """Sentences on the first map of the page, and on what is beside it."""
        method = image["maps"][0]["name"]
        if method in _LEADS:
            return _LEADS[method]
        about = (inspect.getdoc(METHODS.get(method)) or "").partition("\n")[0]
        beside = " Beside it are the clusters of patches." * bool(image["stages"])
        return f"The first map is by {method_title(method)}. {about}{beside}"

    def line(self, numbers: Mapping[str, Any]) -> str:
        """The explained class and its probability."""
        found = numbers["explained"]
        return f"{found['class']} {found['probability']:.1%}"


def explorer_page(
    title: str, explanations: Iterable[tuple[ImageExplanation, str]], note: str
) -> str:
    """A page to explore a few images, without further files.

    A link that ends in ``#image-N`` opens it at the image N, counted from 1.

    Args:
        title: of the page.
        explanations: each with the true class of its image; an iterator keeps only one of them in
            memory at a time.
        note: what the images are, in a sentence.
    """
    images = []
    for explanation, label in explanations:
        data = _explorer_data(explanation)
        text = f"predicted {data['label']}, true class {label}"
        images.append(data | {"name": shown(explanation.path), "label": text})
    pages = ClassificationPages()
    section = html.Section("Explore", [html.paragraph(note), *pages.explorer(images)])
    return html.page(title, pages.lead(images[0]), [section], script=pages.script())


def _numbers(
    explanation: ImageExplanation, areas: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """The JSON record of an image; areas of masks are by method and threshold."""
    return {
        "top": [
            {"class": guess.name, "probability": round(guess.probability, 6)}
            for guess in explanation.top
        ],
        "explained": {
            "class": explanation.explained.name,
            "probability": round(explanation.explained.probability, 6),
        },
        "seen": explanation.placement.region._asdict(),
        "method": next(iter(explanation.maps)),
        "maps": [
            {"method": method, "stages": list(explanation.map_stages[method])}
            for method in explanation.maps
        ],
        "mask_area": {
            method: {threshold: round(area, 4) for threshold, area in by_threshold.items()}
            for method, by_threshold in areas.items()
        },
        "stages": [
            {
                "stage": clusters.stage,
                "block": clusters.block,
                "grid": list(clusters.grid),
                "clusters": len(clusters.weights),
                "valid": int(clusters.valid.sum()),
                "importance": rounded(clusters.relative_importance()),
                "received": rounded(clusters.received),
                "patches": clusters.partition.clamp(min=-1)
                .add(1)
                .bincount(minlength=len(clusters.weights) + 1)[1:]
                .tolist(),
            }
            for clusters in explanation.stages
        ],
    }


def _explorer_data(explanation: ImageExplanation) -> dict[str, Any]:
    """The data of an image for the page's script; boxes are (top, left, height, width) in 0..1."""
    placement = explanation.placement
    size = display_size(placement.image_size)
    unit = placement.resized((1, 1))
    small = thumbnail(explanation.image, fitted_size(size, _THUMBNAIL))
    name, probability = explanation.explained
    label = f"{name} {probability:.1%}"
    if name != explanation.top[0].name:
        label += f", top-1 {explanation.top[0].name} {explanation.top[0].probability:.1%}"
    return {
        "name": shown(explanation.path.name),
        "label": label,
        "thumbnail": png_uri(small),
        "picture": png_uri(thumbnail(explanation.image, size)),
        "seen": rounded(unit.region),
        "border": placement.has_border,
        "maps": [
            {
                "name": method,
                "title": explanation.title(method),
                "size": list(bounded(found).shape),
                "bytes": relative_bytes(bounded(found).flatten()[None]),
            }
            for method, found in explanation.maps.items()
        ],
        "stages": [_stage_data(explanation, clusters) for clusters in explanation.stages],
    }


def _stage_data(explanation: ImageExplanation, clusters: StageClusters) -> dict[str, Any]:
    box = explanation.placement.resized((1, 1)).grid_region(clusters.grid, *clusters.sampling)
    return {
        "stage": clusters.stage,
        "grid": list(clusters.grid),
        "box": rounded(box),
        "clusters": len(clusters.weights),
        "weightBytes": relative_bytes(clusters.weights),
        "attentionBytes": relative_bytes(clusters.attention),
        "importance": rounded(clusters.relative_importance()),
        "partition": clusters.partition.tolist(),
        "colors": [[round(255 * part) for part in one] for one in cluster_colors(clusters)],
    }
