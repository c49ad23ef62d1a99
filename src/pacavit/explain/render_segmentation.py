"""Pictures of explained segmentations: classes, regions with their maps, and a head's clusters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from pacavit.explain.render import (
    COLORMAP,
    display_size,
    fitted_size,
    heatmap_picture,
    thumbnail,
)
from pacavit.explain.segmentation import (
    HeadClusters,
    RegionExplanation,
    SegmentationExplanation,
)
from pacavit.tasks.segmentation.pictures import errors_picture, overlay, with_legend
from pacavit.tasks.segmentation.preprocess import resize_mask
from pacavit.utils.layout import enlarge
from pacavit.utils.pictures import from_pillow, pillow_image
from pacavit.utils.text import escape_formulas

__all__ = [
    "LETTERS",
    "alone_picture",
    "attended_classes",
    "attention_figure",
    "class_entries",
    "class_picture",
    "class_picture_with_legend",
    "cluster_gallery",
    "cluster_label_picture",
    "cluster_picture",
    "marked",
    "region_map",
    "region_picture",
    "sheet",
]

_TILE = 200  # pixels of the longer side of a picture in a sheet
_COLUMNS = 6
LETTERS = 13
"""Height of letters of captions in pixels."""
_PAD = 6  # pixels
_MATRIX = 30  # most rows and columns of a matrix of attention


class _Tile(NamedTuple):
    """A picture (3, H, W) uint8 with its caption."""

    picture: Tensor
    caption: str


def class_picture(explanation: SegmentationExplanation, opacity: float = 0.6) -> Tensor:
    """The image with its predicted classes in color: (3, H, W) uint8 of the size of a display."""
    return _classes(explanation, explanation.labels, _size(explanation), opacity)


def class_picture_with_legend(explanation: SegmentationExplanation) -> Tensor:
    """The same with the names of the classes and their fractions of the area below."""
    entries = [
        (f"{explanation.names[label]} {area:.1%}", explanation.colors[label])
        for label, area in explanation.areas()
    ]
    return with_legend(class_picture(explanation), entries)


def marked(picture: Tensor, region: Tensor) -> Tensor:
    """A picture (3, H, W) uint8 with the outline of a region (any size, bool) in white and black.

    The white line is inside the region, the black one outside.
    """
    inside = resize_mask(region.to(torch.uint8), (picture.shape[1], picture.shape[2])) > 0
    found = picture.clone()
    found[:, _grown(inside, 1) & ~inside] = 0
    # Beyond the edge of the picture is outside, so that a region at the edge is closed.
    outside = F.pad(~inside, (2, 2, 2, 2), value=True)
    found[:, inside & _grown(outside, 2)[2:-2, 2:-2]] = 255
    return found


def region_map(explanation: SegmentationExplanation, region: RegionExplanation) -> Tensor:
    """The map of a region at the size of a display: (H, W), >= 0."""
    placement = explanation.placement.resized(_size(explanation))
    return placement.restore(region.map).clamp(min=0)


def region_picture(explanation: SegmentationExplanation, region: RegionExplanation) -> Tensor:
    """The map of a region over the image, with its outline: (3, H, W) uint8."""
    picture = thumbnail(explanation.image, _size(explanation))
    return marked(heatmap_picture(picture, region_map(explanation, region)), region.region)


def cluster_picture(
    explanation: SegmentationExplanation, values: Tensor, longer: int = _TILE
) -> Tensor:
    """Values of the cells of a head (h, w), >= 0, over the image: (3, H, W) uint8.

    Args:
        explanation: of the image.
        values: one row of those of ``HeadClusters``; colors are relative to the largest.
        longer: pixels of the longer side of the picture.
    """
    size = fitted_size(explanation.placement.image_size, longer)
    heatmap = enlarge(values[None, None], size)
    return heatmap_picture(thumbnail(explanation.image, size), heatmap[0, 0])


def cluster_gallery(explanation: SegmentationExplanation, clusters: HeadClusters) -> Tensor:
    """Of each class, the heatmap of its cluster and its probability by the clusters alone.

    Classes in the image come first, the largest first: (3, H, W) uint8.
    """
    first = [label for label, _ in explanation.areas()]
    others = [label for label in range(len(explanation.names)) if label not in first]
    tiles = []
    for label in (*first, *others):
        name = explanation.names[label]
        weights, probability = clusters.weights[label], clusters.probabilities[label]
        tiles.append(_Tile(cluster_picture(explanation, weights), f"{name}: cluster"))
        highest = f"{name}: up to {float(probability.max()):.0%}"
        tiles.append(_Tile(cluster_picture(explanation, probability), highest))
    return sheet(tiles)


def alone_picture(explanation: SegmentationExplanation, clusters: HeadClusters) -> Tensor:
    """The final classes, those by the clusters alone, and where they differ: (3, H, W) uint8."""
    longer = 2 * _TILE
    size = fitted_size(explanation.placement.image_size, longer)
    final, alone = (resize_mask(each, size) for each in (explanation.labels, clusters.labels))
    small = thumbnail(explanation.image, size)
    by_clusters = cluster_label_picture(explanation, clusters, longer)
    found = sheet(
        [
            _Tile(_classes(explanation, explanation.labels, size), "final answer"),
            _Tile(by_clusters, "argmax of the clusters alone"),
            _Tile(
                errors_picture(small, alone, final),
                f"different in {1 - clusters.agreement:.1%} of the pixels",
            ),
        ]
    )
    labels = torch.cat([explanation.labels, clusters.labels]).unique()
    return with_legend(found, class_entries(explanation, labels), LETTERS)


def class_entries(
    explanation: SegmentationExplanation, labels: Iterable[Tensor | int]
) -> list[tuple[str, tuple[int, int, int]]]:
    """Names and colors of classes for a legend, each once, in their order."""
    return [
        (explanation.names[label], explanation.colors[label])
        for label in sorted({int(label) for label in labels})
    ]


def cluster_label_picture(
    explanation: SegmentationExplanation, clusters: HeadClusters, longer: int
) -> Tensor:
    """The image with the classes of the clusters alone in color: (3, H, W) uint8.

    Args:
        explanation: of the image.
        clusters: of the head.
        longer: pixels of the longer side of the picture.
    """
    size = fitted_size(explanation.placement.image_size, longer)
    return _classes(explanation, clusters.labels, size)


def attended_classes(
    explanation: SegmentationExplanation, clusters: HeadClusters
) -> list[tuple[int, Tensor]]:
    """The mean attention of the pixels of each class in the image to the clusters.

    Returns:
        Classes, the largest first, with (K,) that sum to 1; classes without a cell are left out.
    """
    if clusters.attention is None:
        return []
    attention = clusters.attention.flatten(1)
    cells = clusters.attention.shape[1:]
    labels = resize_mask(explanation.labels, (cells[0], cells[1])).flatten()
    return [
        (label, attention[:, labels == label].mean(1))
        for label, _ in explanation.areas()
        if (labels == label).any()
    ]


def attention_figure(explanation: SegmentationExplanation, clusters: HeadClusters) -> Figure | None:
    """To which clusters the pixels of each class attend, as a matrix; None if it is not known."""
    rows = attended_classes(explanation, clusters)[:_MATRIX]
    if not rows:
        return None
    matrix = torch.stack([attention for _, attention in rows])
    strongest = matrix.amax(0).argsort(descending=True, stable=True)[:_MATRIX].sort().values
    matrix, names = matrix[:, strongest], explanation.names
    height, width = matrix.shape
    figure = Figure(figsize=(2.4 + 0.42 * width, 1.5 + 0.34 * height), layout="constrained")
    axis = figure.subplots()
    axis.imshow(matrix.numpy(), cmap=COLORMAP, vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(
        range(width), [escape_formulas(names[k]) for k in strongest.tolist()], rotation=90
    )
    axis.set_yticks(range(height), [escape_formulas(names[label]) for label, _ in rows])
    axis.tick_params(labelsize=8)
    axis.set_xlabel("attention to the cluster of", fontsize=8)
    axis.set_ylabel("pixels of", fontsize=8)
    for row in range(height):
        for column in range(width):
            value = float(matrix[row, column])
            if value >= 0.005:
                color = "black" if value > 0.6 else "white"
                text = f"{100 * value:.0f}"
                axis.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    axis.set_title("mean attention in percent", fontsize=9)
    return figure


def sheet(tiles: Sequence[tuple[Tensor, str]], columns: int = _COLUMNS) -> Tensor:
    """Pictures (3, h, w) uint8 of one size, with captions below, in rows: (3, H, W) uint8."""
    height, width = tiles[0][0].shape[1:]
    columns = min(columns, len(tiles))
    row_height = height + LETTERS + 2 * _PAD
    rows = math.ceil(len(tiles) / columns)
    canvas = Image.new(
        "RGB", (columns * (width + _PAD) + _PAD, rows * row_height + _PAD), (255, 255, 255)
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(LETTERS)
    for number, (picture, caption) in enumerate(tiles):
        row, column = divmod(number, columns)
        x, y = _PAD + column * (width + _PAD), _PAD + row * row_height
        canvas.paste(pillow_image(picture), (x, y))
        draw.text(
            (x, y + height + _PAD // 2), _fitted(caption, font, width), fill=(0, 0, 0), font=font
        )
    return from_pillow(canvas)


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, or as much of its beginning as fits into a width in pixels."""
    if font.getlength(text) <= width:
        return text
    lengths = range(len(text) - 1, 0, -1)
    return next((f"{text[:n]}…" for n in lengths if font.getlength(f"{text[:n]}…") <= width), "")


def _size(explanation: SegmentationExplanation) -> tuple[int, int]:
    return display_size(explanation.placement.image_size)


def _classes(
    explanation: SegmentationExplanation,
    labels: Tensor,
    size: tuple[int, int],
    opacity: float = 0.6,
) -> Tensor:
    small = thumbnail(explanation.image, size)
    return overlay(small, resize_mask(labels, size), explanation.colors, opacity)


def _grown(mask: Tensor, pixels: int) -> Tensor:
    """(H, W) bool with all pixels near one of the mask."""
    side = 2 * pixels + 1
    return F.max_pool2d(mask[None].float(), side, stride=1, padding=pixels)[0] > 0
