"""Pictures of explained detections: objects with numbers, maps of boxes, clusters of a head."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from pacavit.explain.detection import LEAST_SCORE, BoxExplanation, DetectionExplanation
from pacavit.explain.render import display_size, fitted_size, heatmap_picture, thumbnail
from pacavit.explain.render_segmentation import sheet
from pacavit.explain.segmentation import HeadClusters
from pacavit.tasks.detection.pictures import Mark, detection_marks, draw_marks
from pacavit.utils.layout import enlarge

__all__ = ["box_picture", "cluster_picture", "cluster_sheet", "objects_picture"]

_TILE = 200  # pixels of the longer side of a picture in a sheet
_ASKED = (255, 255, 255)


def objects_picture(explanation: DetectionExplanation) -> Tensor:
    """The objects with scores of at least 0.3, and all that are explained: (3, H, W) uint8.

    Those that are explained have the number of their explanation, from 1.
    """
    found = explanation.detections
    rest = dict(enumerate(detection_marks(found, explanation.info)))
    marks = []
    for rank, each in enumerate(explanation.boxes, 1):
        name = f"{explanation.names[each.label]}?"
        mark = (
            Mark(each.box, _ASKED, name, "dashed") if each.number is None else rest.pop(each.number)
        )
        marks.append(replace(mark, text=f"{rank}: {mark.text}"))
    shown = len(found.above(LEAST_SCORE))
    marks += [mark for number, mark in rest.items() if number < shown]
    height, width = display_size(explanation.placement.image_size)
    return draw_marks(explanation.image, marks, max(height, width))


def box_picture(explanation: DetectionExplanation, box: BoxExplanation) -> Tensor:
    """The map of a box over the image, with the box: (3, H, W) uint8."""
    size = display_size(explanation.placement.image_size)
    heatmap = explanation.placement.resized(size).restore(box.map).clamp(min=0)
    picture = heatmap_picture(thumbnail(explanation.image, size), heatmap)
    height, width = explanation.placement.image_size
    rows, columns = size[0] / height, size[1] / width
    x1, y1, x2, y2 = box.box
    scaled = (x1 * columns, y1 * rows, x2 * columns, y2 * rows)
    mark = Mark(scaled, _ASKED, style="dashed" if box.score is None else "solid")
    return draw_marks(picture, [mark], max(size))


def cluster_picture(explanation: DetectionExplanation, values: Tensor) -> Tensor:
    """Values of the cells of a head (h, w), >= 0, over the image: (3, H, W) uint8.

    Colors are relative to the largest.
    """
    size = fitted_size(explanation.placement.image_size, _TILE)
    heatmap = enlarge(values[None, None], size)[0, 0]
    return heatmap_picture(thumbnail(explanation.image, size), heatmap)


def cluster_sheet(explanation: DetectionExplanation, clusters: HeadClusters) -> Tensor:
    """Of each cluster of a head, its heatmap and its probability: (3, H, W) uint8."""
    tiles = []
    for number, name in enumerate(explanation.cluster_names):
        weights, probability = clusters.weights[number], clusters.probabilities[number]
        tiles.append((cluster_picture(explanation, weights), f"{name}: cluster"))
        highest = f"{name}: up to {float(probability.max()):.0%}"
        tiles.append((cluster_picture(explanation, probability), highest))
    return sheet(tiles)
