"""Explanations of objects: pictures, JSON, and an explorer of objects, their maps, clusters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup

from pacavit.data import Rle
from pacavit.explain.detection import LEAST_SCORE, BoxExplanation, DetectionExplanation
from pacavit.explain.methods.base import METHODS
from pacavit.explain.render import display_size, fitted_size, thumbnail
from pacavit.explain.render_detection import box_picture, cluster_sheet, objects_picture
from pacavit.explain.segmentation import HeadClusters
from pacavit.report import html
from pacavit.report.explanation.base import PAGES, ExplanationPages, WrittenImage, rounded
from pacavit.report.explanation.packing import (
    bounded,
    cluster_weights,
    file_part,
    palette,
    plain_bytes,
    relative_bytes,
)
from pacavit.tasks.detection import Detections
from pacavit.tasks.segmentation.preprocess import resize_mask
from pacavit.utils.pictures import data_uri, jpeg_bytes, png_bytes
from pacavit.utils.text import shown

__all__ = ["DetectionPages"]

_THUMBNAIL = 96  # pixels of the longer side
_MASK = 64  # cells of the longer side of an object's mask
_NONE = f"no object with a score of at least {LEAST_SCORE}"


@PAGES.register("detection")
class DetectionPages(ExplanationPages[DetectionExplanation]):
    """The objects in an image, the map of each box, and the clusters of a head."""

    def write(self, explanation: DetectionExplanation, folder: Path) -> WrittenImage:
        """Write ``objects.jpg``, a picture per box, and one of the head's clusters."""
        folder.mkdir()
        parts = [html.side_by_side(_objects(explanation, folder), *_boxes(explanation, folder))]
        if explanation.clusters is not None:
            parts.append(_clusters(explanation, explanation.clusters, folder))
        pictures = Markup("\n").join(parts)
        return WrittenImage(_numbers(explanation), _explorer_data(explanation), pictures)

    def explorer(self, images: Sequence[Mapping[str, Any]]) -> list[Markup]:
        """The objects in the image; a click on one shows its map."""
        values = {"images": images}
        data = {"images": images, "colors": palette()}
        return [
            html.render("detection_explorer.html", values),
            html.data_block("explorer-data", data),
        ]

    def script(self) -> str:
        """The script of the explorer."""
        names = ("explorer_base.js", "detection_explorer.js")
        return "".join(html.template_text(name) for name in names)

    def lead(self, image: Mapping[str, Any]) -> str:
        """Sentences on the maps and on the clusters."""
        found = "Objects are drawn with their classes and scores. "
        if image["method"] == "d_rise":
            maps = (
                "The map of an object shows which areas have to be visible for it to be found; "
                "bright areas matter most."
            )
        elif METHODS.get(image["method"]).class_specific:
            maps = (
                "The map of an object shows which areas contribute to the score of its class in "
                "its box; bright areas contribute most. They may lie outside of the box, if the "
                "network uses what is around an object."
            )
        else:
            maps = "The maps do not depend on the object."
        if image["clusters"] is None:
            return found + maps
        return (
            f"{found}{maps} The head of this model has clusters for the background, the borders "
            "and the interiors of objects."
        )

    def line(self, numbers: Mapping[str, Any]) -> str:
        """The explained objects, those with the highest scores first."""
        named = [
            f"{each['class']} "
            + (f"logit {each['logit']:.2f}" if each["score"] is None else f"{each['score']:.2f}")
            for each in numbers["boxes"][:3]
        ]
        if named:
            return ", ".join(named)
        highest = numbers["highest_score"]
        return _NONE if highest is None else f"{_NONE}; the highest is {highest:.3f}"


def _objects(explanation: DetectionExplanation, folder: Path) -> Markup:
    picture = jpeg_bytes(objects_picture(explanation))
    (folder / "objects.jpg").write_bytes(picture)
    number = len(explanation.detections.above(LEAST_SCORE))
    objects = "object" if number <= 1 else "objects"
    caption = f"{number or 'no'} {objects} with a score of at least {LEAST_SCORE}"
    return html.picture(data_uri(picture, "image/jpeg"), caption, caption)


def _boxes(explanation: DetectionExplanation, folder: Path) -> Iterator[Markup]:
    """A map over the image per box."""
    for number, box in enumerate(explanation.boxes, 1):
        picture = png_bytes(box_picture(explanation, box))
        name = file_part(explanation.names[box.label])
        (folder / f"box-{number}-{name}.png").write_bytes(picture)
        facts = ", ".join(f"{name} {value}" for name, value in _facts(box))
        caption = f"{number}. {_question(explanation, box)} By {explanation.title()}: {facts}"
        yield html.picture(data_uri(picture, "image/png"), caption, caption)


def _question(explanation: DetectionExplanation, box: BoxExplanation) -> str:
    """The question that a map answers."""
    name = explanation.names[box.label]
    return f"Why, or why not, {name} in this box?" if box.score is None else f"Why is this {name}?"


def _facts(box: BoxExplanation) -> list[tuple[str, str]]:
    """Names and values of the numbers of a box."""
    score = [] if box.score is None else [("score", f"{box.score:.3f}")]
    return [*score, ("logit", f"{box.logit:.2f}"), ("box", _sides(box.box))]


def _sides(box: Sequence[float]) -> str:
    x1, y1, x2, y2 = box
    return f"{x2 - x1:.0f} x {y2 - y1:.0f} px at {x1:.0f}, {y1:.0f}"


def _clusters(explanation: DetectionExplanation, clusters: HeadClusters, folder: Path) -> Markup:
    """The clusters of the head."""
    picture = png_bytes(cluster_sheet(explanation, clusters))
    (folder / "clusters.png").write_bytes(picture)
    caption = (
        "Of each cluster, the weights of the pixels in it (relative to the largest), and its "
        "probability. Where the highest one is taken, the clusters agree with the final answer in "
        f"{html.percent(clusters.agreement)} of the pixels"
    )
    return html.folded(
        "Clusters of the head", html.picture(data_uri(picture, "image/png"), caption, caption)
    )


def _numbers(explanation: DetectionExplanation) -> dict[str, Any]:
    """The JSON record of an image."""
    names, clusters, found = explanation.names, explanation.clusters, explanation.detections
    return {
        "method": explanation.method,
        "stages": list(explanation.stages),
        "objects": len(found.above(LEAST_SCORE)),
        "highest_score": round(float(found.scores[0]), 6) if len(found) else None,
        "boxes": [
            {
                "class": names[box.label],
                "box": [round(value, 2) for value in box.box],
                "score": None if box.score is None else round(box.score, 6),
                "logit": round(box.logit, 6),
            }
            for box in explanation.boxes
        ],
        "clusters": None
        if clusters is None
        else {
            "agreement": round(clusters.agreement, 6),
            "area": {
                name: round(float((clusters.labels == number).float().mean()), 6)
                for number, name in enumerate(explanation.cluster_names)
            },
        },
    }


def _explorer_data(explanation: DetectionExplanation) -> dict[str, Any]:
    """The data of an image for the page's script; what is explained comes first."""
    size, found = explanation.placement.image_size, explanation.detections
    assert explanation.info.objects is not None
    small = thumbnail(explanation.image, fitted_size(size, _THUMBNAIL))
    shown_objects = found.above(LEAST_SCORE)
    present = sorted({*(box.label for box in explanation.boxes), *shown_objects.labels.tolist()})
    return {
        "name": shown(explanation.path.name),
        "label": DetectionPages().line(_numbers(explanation)),
        "thumbnail": data_uri(jpeg_bytes(small), "image/jpeg"),
        "picture": data_uri(
            jpeg_bytes(thumbnail(explanation.image, display_size(size))), "image/jpeg"
        ),
        "method": explanation.method,
        "legend": [
            (explanation.names[label], explanation.info.objects.colors[label]) for label in present
        ],
        "objects": [
            *(_explained_data(explanation, box) for box in explanation.boxes),
            *_other_data(explanation, shown_objects),
        ],
        "clusters": None
        if explanation.clusters is None
        else cluster_weights(explanation.clusters, size) | {"names": explanation.cluster_names},
    }


def _explained_data(explanation: DetectionExplanation, box: BoxExplanation) -> dict[str, Any]:
    """The data of what is explained, with its map."""
    values = bounded(box.map).clamp(min=0)
    name, masks = explanation.names[box.label], explanation.detections.masks
    mask = None
    if box.number is not None and masks is not None:
        mask = _mask_data(masks[box.number], box.box)
    return {
        **_place(explanation, box.label, box.box),
        "name": f"{name}?" if box.score is None else f"{name} {box.score:.2f}",
        "title": _question(explanation, box),
        "facts": _facts(box),
        "asked": box.score is None,
        "map": {"size": list(values.shape), "bytes": relative_bytes(values.flatten()[None])},
        "mask": mask,
    }


def _other_data(explanation: DetectionExplanation, found: Detections) -> Iterator[dict[str, Any]]:
    """The data of the objects that are not explained, without maps."""
    explained = {box.number for box in explanation.boxes}
    rows = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    for number, (label, score, box) in enumerate(rows):
        if number not in explained:
            name = explanation.names[label]
            yield {
                **_place(explanation, label, box),
                "name": f"{name} {score:.2f}",
                "title": name,
                "facts": [("score", f"{score:.3f}"), ("box", _sides(box))],
                "asked": False,
                "map": None,
                "mask": None,
            }


def _place(explanation: DetectionExplanation, label: int, box: Sequence[float]) -> dict[str, Any]:
    """Where a box is, as (top, left, height, width) in 0..1, and its color."""
    height, width = explanation.placement.image_size
    x1, y1, x2, y2 = box
    assert explanation.info.objects is not None
    return {
        "box": rounded((y1 / height, x1 / width, (y2 - y1) / height, (x2 - x1) / width)),
        "color": explanation.info.objects.colors[label],
    }


def _mask_data(mask: Rle, box: Sequence[float]) -> dict[str, Any]:
    """The mask of an object in the pixels around its box."""
    pixels = mask.decode()
    height, width = pixels.shape
    left, top = (math.floor(value) for value in box[:2])
    right, bottom = (math.ceil(value) for value in box[2:])
    inside = pixels[top:bottom, left:right].to(torch.uint8)
    grid = fitted_size((bottom - top, right - left), min(_MASK, max(inside.shape)))
    return {
        "size": grid,
        "box": rounded(
            (top / height, left / width, (bottom - top) / height, (right - left) / width)
        ),
        "bytes": plain_bytes(resize_mask(inside, grid)),
    }
