"""Pictures of explanations: overlays, masks, and galleries of clusters."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pacavit.data.placement import Placement
from pacavit.explain.classification import ImageExplanation, StageClusters
from pacavit.explain.core.masks import THRESHOLDS, restored_mask
from pacavit.explain.methods.base import METHODS
from pacavit.utils.pictures import from_pillow, pillow_image
from pacavit.utils.text import escape_formulas

__all__ = [
    "COLORMAP",
    "cluster_colors",
    "cluster_gallery",
    "cluster_masks",
    "display_size",
    "fitted_size",
    "heatmap_picture",
    "map_masks",
    "overlay",
    "partition_picture",
    "thumbnail",
]

COLORMAP = "inferno"
"""Matplotlib's name of a perceptually uniform colormap, dark to bright."""

_OPACITY = 0.6
_SMALLEST, _LARGEST = 320, 640  # pixels of the longer side of a picture
_CLUSTERS = 26  # in a gallery, which with the partition fill three rows of nine pictures
_COLUMNS = 9


def display_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) to display an image at, with 320 to 640 pixels on the longer side."""
    return fitted_size(image_size, min(max(*image_size, _SMALLEST), _LARGEST))


def fitted_size(image_size: tuple[int, int], longer: int) -> tuple[int, int]:
    """(height, width) of the same aspect ratio with ``longer`` pixels on the longer side."""
    scale = longer / max(image_size)
    return max(1, round(image_size[0] * scale)), max(1, round(image_size[1] * scale))


def thumbnail(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, H, W) uint8 or (H, W) bool -> the same of another size.

    Enlarging keeps pixels visible, reducing averages them; masks stay binary.
    """
    visible = image.ndim == 2 or size[0] > image.shape[1]
    mode = Image.Resampling.NEAREST if visible else Image.Resampling.LANCZOS
    # With reducing_gap=3 the result looks the same, and large photographs are faster.
    gap = None if visible else 3.0
    resized = pillow_image(image).resize((size[1], size[0]), mode, reducing_gap=gap)
    return from_pillow(resized)


def heatmap_picture(picture: Tensor, heatmap: Tensor) -> Tensor:
    """A picture with a map over it: (3, H, W) uint8 and (H, W) -> (3, H, W).

    Args:
        picture: the image below.
        heatmap: >= 0; colors are relative to its largest value. Where it is NaN there is no color.
    """
    colors = mpl.colormaps[COLORMAP](_relative(heatmap.nan_to_num()))
    colors[..., 3] = heatmap.isfinite().numpy() * _OPACITY
    return _blended(picture, colors)


def partition_picture(picture: Tensor, clusters: StageClusters, placement: Placement) -> Tensor:
    """A picture tinted by the cluster of every patch: (3, H, W) uint8 -> (3, H, W)."""
    colors = _partition(clusters, placement)
    colors[..., 3] *= _OPACITY
    return _blended(picture, colors)


def overlay(explanation: ImageExplanation, method: str, note: str) -> Figure:
    """The image with a map over it; class, probability and a legend beside it.

    Args:
        explanation: of the image.
        method: of the map.
        note: a few words below the map.
    """
    size = display_size(explanation.placement.image_size)
    picture = thumbnail(explanation.image, size)
    heatmap = _relative(explanation.placement.resized(size).restore(explanation.maps[method]))
    name, probability = explanation.explained
    height, width = (side / 100 for side in size)
    figure = Figure(figsize=(2 * width + 1.3, height + 0.75), layout="constrained")
    plain, marked = figure.subplots(1, 2)
    plain.imshow(_array(picture))
    top = explanation.top[0]
    plain.set_title(escape_formulas(f"{top.name} {top.probability:.1%}"), fontsize=10)
    plain.set_xlabel("image, top-1 class", fontsize=8)
    marked.imshow(_array(picture))
    drawn = marked.imshow(heatmap, cmap=COLORMAP, alpha=_OPACITY, vmin=0, vmax=1)
    about_class = METHODS.get(method).class_specific
    title = f"evidence for {name} ({probability:.1%})" if about_class else "for any class"
    marked.set_title(escape_formulas(title), fontsize=10)
    marked.set_xlabel(note, fontsize=8)
    legend = figure.colorbar(drawn, ax=marked, fraction=0.046, pad=0.02, ticks=[0, 1])
    legend.ax.set_yticklabels(["0", "most"], fontsize=8)
    _bare(plain, marked)
    return figure


def map_masks(explanation: ImageExplanation, method: str) -> Mapping[str, Tensor]:
    """The masks of a map over the whole image, (H, W) bool, by threshold."""
    return _masks(explanation.restored(method), explanation.placement)


def cluster_masks(explanation: ImageExplanation, clusters: StageClusters) -> Mapping[str, Tensor]:
    """The masks of the most important cluster of a stage, (H, W) bool, by threshold."""
    placement = explanation.placement
    return _masks(clusters.heatmap(clusters.ranking()[0], placement), placement)


def cluster_gallery(explanation: ImageExplanation, clusters: StageClusters) -> Figure:
    """The partition of a stage, and the heatmaps of its clusters, the most important first."""
    size = display_size(explanation.placement.image_size)
    picture = _array(thumbnail(explanation.image, size))
    placement = explanation.placement.resized(size)
    ranking = clusters.ranking()
    shown = ranking[:_CLUSTERS]
    rows = math.ceil((len(shown) + 1) / _COLUMNS)
    columns = math.ceil((len(shown) + 1) / rows)
    height = 1.5 * size[0] / max(size)
    figure = Figure(figsize=(1.6 * columns, (height + 0.35) * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    _bare(*axes)
    axes[0].imshow(picture)
    axes[0].imshow(_partition(clusters, placement), alpha=0.65)
    axes[0].set_title("partition", fontsize=8)
    importance, colors = clusters.relative_importance(), cluster_colors(clusters)
    for axis, cluster in zip(axes[1:], shown, strict=False):
        heatmap = clusters.heatmap(cluster, placement)
        axis.imshow(picture)
        axis.imshow(_relative(heatmap), cmap=COLORMAP, alpha=_OPACITY)
        axis.set_title(f"cluster {cluster}: {importance[cluster]:.0%}", fontsize=8)
        for spine in axis.spines.values():
            spine.set(visible=True, color=colors[cluster], linewidth=2)
    for axis in axes[len(shown) + 1 :]:
        axis.set_visible(False)
    more = f", {len(shown)} of {len(ranking)}" if len(shown) < len(ranking) else ""
    figure.suptitle(
        escape_formulas(
            f"clusters of stage {clusters.stage}, block {clusters.block}{more}, and their fraction "
            f"of the importance for {explanation.explained.name}"
        ),
        fontsize=9,
    )
    return figure


def cluster_colors(clusters: StageClusters) -> list[tuple[float, float, float]]:
    """A color (red, green, blue) in 0..1 for each cluster; the largest clusters differ most."""
    sizes = torch.bincount(clusters.partition.clamp(min=0), minlength=len(clusters.weights))
    colors = [(0.0, 0.0, 0.0)] * len(clusters.weights)
    for rank, cluster in enumerate(sizes.argsort(descending=True, stable=True).tolist()):
        hue = rank * 0.618034 % 1  # steps of the golden ratio keep hues far apart
        lightness = (0.5, 0.72, 0.34)[rank % 3]
        colors[cluster] = colorsys.hls_to_rgb(hue, lightness, 0.85)
    return colors


def _masks(heatmap: Tensor, placement: Placement) -> dict[str, Tensor]:
    return {threshold: restored_mask(heatmap, placement, threshold) for threshold in THRESHOLDS}


def _partition(clusters: StageClusters, placement: Placement) -> NDArray[np.float32]:
    """The color of the cluster of every pixel: (H, W, 4), transparent where there is none."""
    table = torch.tensor([(*color, 1.0) for color in cluster_colors(clusters)] + [(0.0,) * 4])
    (row, row_seen), (column, column_seen) = placement.input_positions()
    rows, columns = (
        ((position - clusters.sampling.offset) / clusters.sampling.stride)
        .round()
        .long()
        .clamp(0, cells - 1)
        for position, cells in zip((row, column), clusters.grid, strict=True)
    )
    cluster = clusters.partition.unflatten(0, clusters.grid)[rows][:, columns]
    cluster = cluster.masked_fill(~(row_seen[:, None] & column_seen), -1)
    return np.asarray(table[cluster].numpy())


def _relative(heatmap: Tensor) -> NDArray[np.floating]:
    """Values divided by the largest, 0..1; NaN stays NaN, which is not drawn."""
    largest = heatmap.nan_to_num().max().clamp(min=torch.finfo(heatmap.dtype).tiny)
    return np.asarray((heatmap / largest).numpy())


def _blended(picture: Tensor, colors: NDArray[np.floating]) -> Tensor:
    """(3, H, W) uint8 below (H, W, 4) in 0..1 -> (3, H, W) uint8."""
    opacity = colors[..., 3:]
    mixed = (1 - opacity) * _array(picture) + opacity * 255 * colors[..., :3]
    return torch.from_numpy(mixed.round().astype(np.uint8)).permute(2, 0, 1)


def _array(image: Tensor) -> NDArray[np.uint8]:
    return np.asarray(image.permute(1, 2, 0).numpy())


def _bare(*axes: mpl.axes.Axes) -> None:
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_visible(False)
